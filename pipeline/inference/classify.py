"""Class probabilities from a sealed classifier."""

import time

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import stopping
from pipeline.artifact import Artifact
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.model.weights import load_classifier
from pipeline.progress import Reporter
from pipeline.settings import RunSettings
from pipeline.text.ids import IdStore
from pipeline.training.checkpoints import CheckpointStore
from pipeline.training.device import keep_freed_memory, resolve_device
from pipeline.training.loaders import ClassifierLoader
from pipeline.training.state import read_state, write_state

CHECKPOINT_S = 300.0
"""Time between two checkpoints of the predictions."""


def predict_documents(
    classifier: Artifact, store: IdStore, documents: NDArray[np.int64], *, bs: int, run: RunSettings,
    reporter: Reporter, checkpoints: CheckpointStore | None = None,
) -> NDArray[np.float64]:
    """Probabilities [N documents, C classes] of `documents`, in their order; columns as in labels.json.

    Goes on after the newest of `checkpoints`, if there are any. Raises Stopped, after another one, if a stop was asked
    for.
    """
    device = resolve_device(run)
    keep_freed_memory()
    head = HeadShape.load(classifier.file("head.json"))
    model = build_classifier(Architecture.load(classifier.file("architecture.json")), head)
    load_classifier(model, classifier.path)
    model.to(device.device).eval()
    loader = ClassifierLoader(
        store, documents, store.label_ids, bs=bs, seq_len=head.seq_len,
        backwards=classifier.manifest.identity["direction"] == "bwd",
    )
    probabilities, done = np.zeros((len(documents), head.n_classes)), 0
    newest = checkpoints.newest() if checkpoints else None
    if newest is not None:
        state = read_state(newest)
        probabilities, done = state["probabilities"].numpy(), state["batches"]
        reporter.line(f"going on after batch {done} of {len(loader)}")

    def save(checkpoints: CheckpointStore) -> None:
        state = {"batches": done, "probabilities": torch.from_numpy(probabilities)}
        checkpoints.save(done, lambda folder: write_state(state, folder), probabilities.nbytes)

    order = loader.document_order()
    saved_at = time.monotonic()
    with reporter.task("predicting", len(documents), "documents") as task, torch.inference_mode(), device.kernels():
        task.advance(sum(map(len, order[:done])))
        for positions, (x, _) in zip(order[done:], loader.batches(0, done), strict=True):
            with device.autocast():
                logits = model(x.to(device.device))[0]
            if logits.dtype != device.dtype:
                raise RuntimeError(f"{device.precision} was asked for, the model put out {logits.dtype}")
            probabilities[positions] = torch.softmax(logits.double(), dim=1).cpu().numpy()
            task.advance(len(positions))
            done += 1
            if checkpoints and (stopping.asked() or time.monotonic() - saved_at >= CHECKPOINT_S):
                save(checkpoints)
                saved_at = time.monotonic()
            stopping.check(f"Predicting after batch {done} of {len(loader)}")
    return probabilities
