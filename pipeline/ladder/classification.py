"""Training of the neural classifier rungs: the loop and checkpoints of `train_classifier` around another network."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline import stopping
from pipeline.artifact import Artifact
from pipeline.ladder.classifiers import build
from pipeline.ladder.draws import DrawnLoader
from pipeline.ladder.fitting import WEIGHTS, best_of, fit, one_group, outcome, weights
from pipeline.ladder.rungs import ClassifierSettings, Rung
from pipeline.ladder.scoring import Ids, Splits, write_scores
from pipeline.making import StageOutcome
from pipeline.model.weights import load_tensors, save_tensors
from pipeline.progress import Reporter
from pipeline.text.ids import IdStore
from pipeline.training.class_weights import cross_entropy, weight_of
from pipeline.training.device import Device
from pipeline.training.loaders import ClassifierLoader
from pipeline.training.metrics import CLASSIFIER_METRICS, classifier_figures
from pipeline.training.phases import seed_weights
from pipeline.training.task import Task

_PREDICT_BS = 64


def train(
    rung: Rung, ids: Artifact, splits: Splits, *, seed: int, device: Device, work: Path, resume: Path,
    fingerprint: str, reporter: Reporter,
) -> StageOutcome:
    """Train `rung` as `fitting.fit` does it, score its best epoch on test, and write labels and scores, too.

    Raises what `fit` raises.
    """
    settings, store = rung.settings, IdStore.open(ids)
    assert isinstance(settings, ClassifierSettings), rung.name
    task = task_of(rung, store, splits, seed, device)
    trained = fit(
        task, settings, ids, seed=seed, device=device, work=work, resume=resume, fingerprint=fingerprint,
        reporter=reporter,
    )
    task.load(trained.best.folder)
    started, test = time.monotonic(), splits.test
    probabilities = predict(task.model, store, test, device)
    predict_s = time.monotonic() - started
    (work / "labels.json").write_text(json.dumps(store.labels, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return outcome(task, trained, ids, device, {
        **write_scores(store, test, probabilities, predict_s, seed=seed, work=work),
        "valid_accuracy": best_of(trained)["accuracy"],
        "train_documents": task.units,
    })


def task_of(rung: Rung, store: IdStore, splits: Splits, seed: int, device: Device) -> Task:
    """The network of `rung` and its documents, ready to be trained."""
    settings = rung.settings
    assert isinstance(settings, ClassifierSettings), rung.name
    seed_weights(seed)
    model = build(
        rung.name, len(store.vocabulary), len(store.labels), int(store.n_tokens[splits.train].max()), settings
    )
    kind = DrawnLoader if settings.draws == "classes" else ClassifierLoader
    train = _loader(store, splits.train, settings.bs, seed, kind)
    valid = _loader(store, splits.valid, settings.bs, None)
    counts = np.bincount(store.label_ids[splits.train], minlength=len(store.labels))
    loss = cross_entropy(settings.class_weights, counts, device.device)
    return Task(
        name=rung.name, model=model, splitter=one_group, loss=loss, train=train, valid=valid,
        metrics=CLASSIFIER_METRICS, unit="documents", units=len(splits.train), weigh=weight_of(loss),
        summarize=classifier_figures,
        save=lambda folder: save_tensors(weights(model), folder / WEIGHTS),
        load=lambda folder: load_tensors(weights(model), folder / WEIGHTS), keep_best="accuracy",
    )


@torch.no_grad()
def predict(model: nn.Module, store: IdStore, documents: Ids, device: Device) -> NDArray[np.float32]:
    """Probabilities [documents, classes] in the order of `documents`; Stopped if a stop is asked for."""
    model.eval()
    loader = _loader(store, documents, _PREDICT_BS, None)
    found = np.zeros((len(documents), len(store.labels)), dtype=np.float32)
    for places, (ids_BT, _) in zip(loader.document_order(), loader, strict=True):
        stopping.check("compare, while predicting,")
        found[places] = torch.softmax(model(ids_BT.to(device.device))[0].float(), 1).cpu().numpy()
    return found


def _loader(
    store: IdStore, documents: Ids, bs: int, seed: int | None, kind: type[ClassifierLoader] = ClassifierLoader
) -> ClassifierLoader:
    """Batches padded behind only: no document is longer than a chunk."""
    longest: Any = store.n_tokens[documents].max()
    return kind(store, documents, store.label_ids, bs=bs, seq_len=int(longest), seed=seed)
