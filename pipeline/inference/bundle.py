"""A sealed classifier folder, ready for use: text in, class probabilities out, with no training code."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.artifact import Artifact, open_artifact
from pipeline.errors import DivergedError, InputError
from pipeline.inference.classifier import Classifier, load_classifier
from pipeline.inference.pooling import Rows
from pipeline.inference.ragged import Lengths, plan_batches
from pipeline.settings import RunSettings
from pipeline.text.text_encoder import TextEncoder
from pipeline.training.device import Device, resolve_device

BS = 64
"""Documents per batch unless told otherwise: more are no faster on a CPU (measured)."""


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier with its weights on a device."""

    model: Classifier
    direction: str
    """fwd or bwd: from which end documents are read."""
    device: Device

    @classmethod
    def load(cls, classifier: Artifact, run: RunSettings) -> "LoadedClassifier":
        """The classifier of an artifact, on the device and in the precision that `run` asks for."""
        device = resolve_device(run)
        model = load_classifier(classifier.path, device.dtype, device.device, int8=device.int8)
        return cls(model, classifier.manifest.identity["direction"], device)

    def batches(self, lengths: Lengths, bs: int) -> list[NDArray[np.int64]]:
        """Positions of documents in batches of `bs`, or of more short ones."""
        return plan_batches(lengths, bs, self._step_tokens(bs))

    def batch(self, rows: Rows, bs: int, between_steps: Callable[[], None] = lambda: None) -> NDArray[np.float64]:
        """Probabilities [B, C] of one of those batches: documents as ids from their beginning, longest first."""
        probabilities: NDArray[np.float64] = torch.softmax(self.logits(rows, bs, between_steps), dim=1).numpy()
        return probabilities

    def logits(self, rows: Rows, bs: int, between_steps: Callable[[], None] = lambda: None) -> Tensor:
        """Logits [B, C] of such a batch, float64, on the CPU."""
        step = -1 if self.direction == "bwd" else 1
        with torch.inference_mode(), self.device.kernels():
            return self.model([row[::step] for row in rows], self._step_tokens(bs), between_steps).double().cpu()

    def _step_tokens(self, bs: int) -> int:
        return bs * self.model.shape.seq_len


@dataclass(frozen=True)
class ClassifierBundle:
    """Everything a sealed classifier folder holds, loaded. C classes."""

    path: Path
    fingerprint: str
    text: TextEncoder
    labels: list[str]
    """Label of each column of probabilities."""
    classifier: LoadedClassifier

    def probabilities(
        self, documents: Rows, *, bs: int = BS, between_steps: Callable[[], None] = lambda: None,
        done: Callable[[int], Any] = lambda n: None,
    ) -> NDArray[np.float64]:
        """Probabilities [N, C] of documents given as ids, in their order, read in batches of `bs`.

        `between_steps` may end the work by an exception; `done` is told how many documents each batch had. Raises
        DivergedError for probabilities that are no numbers.
        """
        found = np.zeros((len(documents), len(self.labels)))
        for batch in self.classifier.batches(np.array([len(d) for d in documents], dtype=np.int64), bs):
            found[batch] = self.classifier.batch([documents[i] for i in batch], bs, between_steps)
            done(len(batch))
        bad = int(np.count_nonzero(~np.isfinite(found).all(axis=1)))
        if bad:
            raise DivergedError(
                f"{self.path} gives probabilities that are not finite for {bad:,} of {len(documents):,} texts.",
                "Try --precision fp32, or train the classifier again with a lower learning rate.",
            )
        return found

    def predict(self, texts: Sequence[str | bytes]) -> NDArray[np.float64]:
        """Probabilities [N, C] of texts."""
        return self.probabilities(self.text.encode(texts))


def load_classifier_bundle(folder: Path, run: RunSettings | None = None) -> ClassifierBundle:
    """The classifier sealed in `folder`, on the device and in the precision that `run` asks for.

    Raises InputError if it is not a sealed classifier, is damaged, or has parts that do not fit together.
    """
    artifact = open_artifact(folder, "classifier")
    for name in ("vocabulary.json", "tokenizer/tokenizer.json", "encoder.safetensors", "head.safetensors"):
        artifact.file(name)
    text = TextEncoder.load(folder)
    labels: list[str] = json.loads(artifact.file("labels.json").read_text(encoding="utf-8"))
    classifier = LoadedClassifier.load(artifact, run or RunSettings())
    rows, n_classes = classifier.model.encoder.embedding.num_embeddings, classifier.model.shape.n_classes
    if len(text.numbers) > rows or len(labels) != n_classes:
        raise InputError(
            f"The parts of {folder} do not fit together: {len(text.numbers):,} tokens and {len(labels)} labels, but "
            f"{rows:,} embeddings and {n_classes} classes.",
            "Train the classifier again.",
        )
    return ClassifierBundle(folder, artifact.manifest.fingerprint, text, labels, classifier)
