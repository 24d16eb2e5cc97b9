"""Models as commands name them: by folder or by run, with a device and a precision."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import InputError, UsageError
from pipeline.pretrained import shipped
from pipeline.settings import RunSettings
from pipeline.training.device import resolve_device

_NAMES = {"classifier": "classifier", "lm": "language model"}


def find_model(model: str, home: Path, slots: Sequence[str], option: str = "--model") -> Path:
    """The folder of a model named, with `option`, by its path, its run or the name it ships under; of a run, the first
    of `slots` (classifier, lm) it has.

    Raises InputError, which says where it was looked for, if there is none, UsageError if it has one of each direction.
    """
    named = Path(model)
    if (named / "manifest.json").exists():
        return named
    for slot in slots:
        found = [path for path in (home / "models" / model / f"{slot}-{d}" for d in ("fwd", "bwd")) if path.exists()]
        if len(found) > 1:
            mend = f"Name one: {option} {found[0]} or {found[1]}."
            raise UsageError(f"The run {model} has two {_NAMES[slot]}s.", mend)
        if found:
            return found[0]
    for slot in slots:
        path = shipped(model, slot)
        if path is not None and path.exists():
            return path
    raise InputError(
        f"There is no {' or '.join(_NAMES[slot] for slot in slots)} {named}, and no run of this name has one in "
        f"{home / 'models'}.",
        f"Name a folder such as models/RUN/{slots[0]}-fwd, or train one: python -m pipeline run --run RUN",
    )


def run_settings(precision: str, device: str, kind: type[RunSettings] = RunSettings) -> RunSettings:
    """The settings that load a model as --precision and --device say; UsageError for what they cannot be (here).

    `kind`: PredictionSettings for classifiers.
    """
    asked = {"precision": precision, "device": device}
    try:
        settings = kind.model_validate(asked)
    except ValidationError as error:
        where, why = str(error.errors()[0]["loc"][0]), error.errors()[0]["msg"]
        raise UsageError(f"--{where} cannot be {asked[where]!r}: {why}.") from error
    resolve_device(settings, by_options=True)  # later it would name settings, which these commands have not
    return settings
