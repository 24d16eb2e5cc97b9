"""The `predict` command: texts from arguments, a pipe or a file; classes and probabilities out, in the same order.

An empty or blank text is predicted from xxbos alone: the classifier's prior.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.inference.bulk import Request, Wording, carry_out
from pipeline.inference.bundle import ClassifierBundle, load_classifier_bundle
from pipeline.inference.models import find_model, run_settings
from pipeline.inference.outputs import FORMATS, Format, Predictions
from pipeline.inference.pooling import Rows
from pipeline.progress import Reporter
from pipeline.settings import PredictionSettings
from pipeline.text.text_encoder import TextEncoder
from pipeline.training.device import Device

_WORDING = Wording("predict", "predicting", "predicted", "predictions", "the prior of an empty document")


def predict(request: Request, reporter: Reporter, stdin: BinaryIO, stdout: BinaryIO) -> int:
    """Predict all texts; returns how many there were.

    Raises what `bulk.carry_out` raises, and DivergedError for probabilities that are no numbers.
    """

    def load() -> _Predicting:
        settings = run_settings(request.precision, request.device, PredictionSettings)
        return _Predicting(load_classifier_bundle(find_classifier(request.model, request.home), settings), request.bs)

    return carry_out(request, _WORDING, FORMATS, load, reporter=reporter, stdin=stdin, stdout=stdout)


def find_classifier(model: str, home: Path) -> Path:
    """The folder of a classifier named by its path or by its run; InputError says where it was looked for."""
    return find_model(model, home, ("classifier",))


@dataclass(frozen=True)
class _Predicting:
    """Class probabilities of texts."""

    bundle: ClassifierBundle
    bs: int

    @property
    def path(self) -> Path:
        return self.bundle.path

    @property
    def text(self) -> TextEncoder:
        return self.bundle.text

    @property
    def device(self) -> Device:
        return self.bundle.classifier.device

    @property
    def asked(self) -> dict[str, str]:
        return {"classifier": self.bundle.fingerprint}

    def written_as(self, suffix: str) -> Format:
        return FORMATS[suffix](self.bundle.labels)

    def rows(
        self, ids: Sequence[str], documents: Rows, check: Callable[[], None], done: Callable[[int], Any]
    ) -> Predictions:
        probabilities = self.bundle.probabilities(documents, bs=self.bs, between_steps=check, done=done)
        return Predictions(ids, self.bundle.labels, probabilities)
