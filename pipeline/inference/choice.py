"""Which model is meant, and what it is to run on, as a command line names them."""

from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import InputError, UsageError
from pipeline.settings import RunSettings


def find_classifier(model: str, home: Path) -> Path:
    """The folder of a classifier named by its path or by its run; InputError says where it was looked for."""
    return _find(model, home, "classifier", "classifier", "--model")


def find_language_model(model: str, home: Path, option: str) -> Path:
    """The folder of a language model named, with `option`, by its path or by its run; InputError as above."""
    return _find(model, home, "lm", "language model", option)


def _find(model: str, home: Path, slot: str, called: str, option: str) -> Path:
    named = Path(model)
    if (named / "manifest.json").exists():
        return named
    found = [path for path in (home / "models" / model / f"{slot}-{d}" for d in ("fwd", "bwd")) if path.exists()]
    if not found:
        raise InputError(
            f"There is no {called} {named}, and no run of this name has one in {home / 'models'}.",
            f"Name a folder such as models/RUN/{slot}-fwd, or train one: python -m pipeline run --run RUN",
        )
    if len(found) > 1:
        raise UsageError(f"The run {model} has two {called}s.", f"Name one: {option} {found[0]} or {found[1]}.")
    return found[0]


def asked_settings(precision: str, device: str) -> RunSettings:
    """The settings that --precision and --device ask for; UsageError for a value there is not."""
    given = {"precision": precision, "device": device}
    try:
        return RunSettings.model_validate(given)
    except ValidationError as error:
        where, why = str(error.errors()[0]["loc"][0]), error.errors()[0]["msg"]
        raise UsageError(f"--{where} cannot be {given[where]!r}: {why}.") from error
