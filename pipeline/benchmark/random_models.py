"""Models with random weights, sealed as the training stages seal theirs."""

import json
from pathlib import Path

import torch

from pipeline.artifact import Artifact
from pipeline.benchmark.model_data import LABELS, seal
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier, build_language_model
from pipeline.model.text_files import copy_text_files
from pipeline.model.weights import save_classifier, save_language_model
from pipeline.training_settings import TrainClassifierSettings

Lstm = tuple[int, int, int]
"""Embedding size, hidden size, layers."""


def seal_language_model(target: Path, ids: Artifact, vocabulary_size: int, lstm: Lstm) -> Artifact:
    """A language model that a classifier can start from."""
    architecture = Architecture(vocabulary_size, *lstm)
    torch.manual_seed(0)
    model = build_language_model(architecture)

    def write(work: Path) -> dict[str, str]:
        save_language_model(model, work)
        return _surroundings(work, ids, architecture)

    return seal(target, "lm", write, {"transductive": False})


def seal_classifier(target: Path, ids: Artifact, vocabulary_size: int, lstm: Lstm) -> Artifact:
    """A classifier that can predict."""
    architecture = Architecture(vocabulary_size, *lstm)
    head = HeadShape.from_settings(TrainClassifierSettings(), len(LABELS))
    torch.manual_seed(0)
    model = build_classifier(architecture, head)

    def write(work: Path) -> dict[str, str]:
        save_classifier(model, work)
        head.save(work / "head.json")
        (work / "labels.json").write_text(json.dumps(LABELS), encoding="utf-8")
        return _surroundings(work, ids, architecture)

    return seal(target, "classifier", write)


def _surroundings(work: Path, ids: Artifact, architecture: Architecture) -> dict[str, str]:
    """The files beside the weights; the identity of the model."""
    architecture.save(work / "architecture.json")
    copy_text_files(ids.path, work)
    return {**ids.manifest.identity, "direction": "fwd", "architecture": architecture.hash()}
