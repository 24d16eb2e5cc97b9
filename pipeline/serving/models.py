"""The models that a server has, each with a name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.inference.bundle import ClassifierBundle, load_classifier_bundle
from pipeline.inference.language_model import LanguageModelBundle, load_language_model_bundle
from pipeline.inference.models import find_model
from pipeline.inference.predict import find_classifier
from pipeline.settings import RunSettings
from pipeline.training.device import DTYPES


@dataclass(frozen=True)
class Models:
    """Loaded once, by name."""

    classifiers: dict[str, ClassifierBundle]
    """The first is the default."""
    language_model: tuple[str, LanguageModelBundle] | None = None

    @classmethod
    def load(cls, classifiers: Sequence[str], language_model: str | None, home: Path, run: RunSettings) -> "Models":
        """Classifiers and language model given by folder or run, on the device and in the precision of `run`.

        Where `run` leaves the precision open, or it is int8, the language model has fp32, as `generate` has: the same
        seed writes the same text. Raises UsageError if a classifier is given twice, InputError for a model that cannot
        be loaded.
        """
        folders = [find_classifier(name, home) for name in classifiers]
        if len({folder.resolve() for folder in folders}) < len(folders):
            raise UsageError("A classifier is given twice.", "Name every --model once.")
        lm = None if language_model is None else find_model(language_model, home, ("lm",), "--lm")
        bundles = [load_classifier_bundle(folder, run) for folder in folders]
        for bundle in bundles:  # the first text and the first batch take seconds: what they need is made then
            for n_texts in (1, 2):
                bundle.predict(["A warm-up."] * n_texts)
        stated = run.precision in DTYPES
        writing = run if stated else run.model_copy(update={"precision": "fp32"})
        return cls(
            dict(zip(names(folders), bundles, strict=True)),
            None if lm is None else (names([lm])[0], load_language_model_bundle(lm, writing)),
        )


def names(folders: Sequence[Path]) -> list[str]:
    """A short name for each of several different folders: the run; with the folder's own name, or all, if need be."""
    for parts in (slice(-2, -1), slice(-2, None), slice(None)):
        found = ["/".join(folder.resolve().parts[parts]) for folder in folders]
        if len(set(found)) == len(found):
            break
    return found
