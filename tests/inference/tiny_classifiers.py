"""Classifiers small enough to build hundreds of times: random, trained, and sealed in a folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import artifact as artifacts
from pipeline.artifact import Manifest
from pipeline.attempt import open_partial
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.model.weights import save_classifier
from pipeline.provenance import now
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.tokenizer import Tokenizer, save_tokenizer
from pipeline.text.vocabulary import write_vocabulary
from pipeline.text.word import WordTokenizer
from pipeline.training.loaders import pad_documents
from pipeline.training_settings import TrainClassifierSettings

ARCHITECTURE = Architecture(vocabulary_size=41, emb_sz=6, n_hid=8, n_layers=3)
WORDS = ("xxmaj", "a", "warm", "witty", "film", "the", "dull", "story", "!", "cast", "naïve", "fine")
LABELS = ("negative", "positive")
Rows = list[NDArray[np.int64]]


def random_rows(lengths: Sequence[int], seed: int = 0) -> Rows:
    """Documents of those lengths, xxbos first."""
    rng = np.random.default_rng(seed)
    return [np.concatenate([[2], rng.integers(2, 41, length - 1)]) for length in lengths]


def random_classifier(shape: HeadShape, seed: int = 0) -> Any:
    """A classifier in eval mode with random weights and batch-norm statistics."""
    torch.manual_seed(seed)
    model = build_classifier(ARCHITECTURE, shape)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def trained_classifier(shape: HeadShape) -> Any:
    """A classifier trained, with dropout, for a few steps on padded batches; in eval mode."""
    torch.manual_seed(1)
    settings = TrainClassifierSettings(seq_len=shape.seq_len, max_len=shape.max_len, lin_ftrs=shape.lin_ftrs)
    model = build_classifier(ARCHITECTURE, shape, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(12):
        rows = sorted(random_rows([30, 5, 12, 21, 8, 3], seed=step), key=len, reverse=True)
        labels = torch.tensor([int(np.median(row) > 20) for row in rows])
        loss = torch.nn.functional.cross_entropy(model(pad_documents(rows, shape.seq_len))[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def save(model: Any, shape: HeadShape, folder: Path, architecture: Architecture = ARCHITECTURE) -> Path:
    """The weights and sizes of a classifier in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_classifier(model, folder)
    architecture.save(folder / "architecture.json")
    shape.save(folder / "head.json")
    return folder


def seal_classifier(
    folder: Path, *, direction: str = "fwd", labels: Sequence[str] = LABELS, broken: bool = False,
    tokenizer: Tokenizer | None = None, seed: int = 3,
) -> Path:
    """A sealed classifier of WORDS."""
    vocabulary = [*SPECIAL_TOKENS, *(word for word in WORDS if word not in SPECIAL_TOKENS)]
    architecture, shape = Architecture(len(vocabulary), 8, 12, 2), HeadShape(len(labels), (6,), 5, 50)
    work, _ = open_partial(folder, "f" * 64)
    torch.manual_seed(seed)
    model = build_classifier(architecture, shape)
    with torch.no_grad():
        model[0].module.encoder.weight.normal_(std=1.0)  # so that words make a difference
        if broken:
            model[1].layers[-1][-1].weight.fill_(torch.nan)
    save(model, shape, work, architecture)
    (work / "labels.json").write_text(json.dumps(list(labels)), encoding="utf-8")
    write_vocabulary(work, vocabulary)
    save_tokenizer(tokenizer or WordTokenizer(), work / "tokenizer")
    manifest: dict[str, Any] = {
        "slot": "classifier", "stage": "train_classifier", "code_version": 1, "settings": {}, "inputs": {},
        "fingerprint": artifacts.hash_json([direction, list(labels), seed]), "source": None,
        "identity": {"direction": direction}, "files": {}, "versions": {}, "git_commit": None, "git_dirty": None,
        "host": "test", "job_id": None, "device": None, "precision": None, "created": now(), "wall_s": 0.0,
        "peak_memory_mb": 0.0, "metrics": {},
    }
    artifacts.seal(folder, Manifest(**manifest))
    return folder
