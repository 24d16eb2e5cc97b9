"""Class probabilities from a sealed classifier."""

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.artifact import Artifact
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.model.weights import load_classifier
from pipeline.progress import Reporter
from pipeline.settings import RunSettings
from pipeline.text.ids import IdStore
from pipeline.training.device import keep_freed_memory, resolve_device
from pipeline.training.loaders import ClassifierLoader


def predict_documents(
    classifier: Artifact, store: IdStore, documents: NDArray[np.int64], *, bs: int, run: RunSettings, reporter: Reporter
) -> NDArray[np.float64]:
    """Probabilities [N documents, C classes] of `documents`, in their order; columns as in labels.json."""
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
    probabilities = np.empty((len(documents), head.n_classes))
    with reporter.task("predicting", len(documents), "documents") as task, torch.inference_mode(), device.kernels():
        for positions, (x, _) in zip(loader.document_order(), loader, strict=True):
            with device.autocast():
                logits = model(x.to(device.device))[0]
            if logits.dtype != device.dtype:
                raise RuntimeError(f"{device.precision} was asked for, the model put out {logits.dtype}")
            probabilities[positions] = torch.softmax(logits.double(), dim=1).cpu().numpy()
            task.advance(len(positions))
    return probabilities
