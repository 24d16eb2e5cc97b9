"""Which sealed model a command line means."""

from pathlib import Path
from typing import Literal

from pipeline.artifact import Artifact, open_artifact, read_manifest
from pipeline.errors import InputError, UsageError
from pipeline.pretrained import shipped

Slot = Literal["lm", "classifier"]
_NAMES: dict[Slot, str] = {"lm": "language model", "classifier": "classifier"}


def find_model(slot: Slot, folder: Path | None, run: str | None, home: Path) -> Artifact:
    """The model in `folder`, or the one that `run` has below `home`, or the one that ships under this name.

    Raises UsageError if both or none are named or the run has two, InputError if there is none or it is damaged.
    """
    if (folder is None) == (run is None):
        raise UsageError(f"Which {_NAMES[slot]} is not said.", f"Give --{slot} FOLDER or --run NAME, one of them.")
    if folder is None:
        assert run is not None
        folders = [home / "models" / run / f"{slot}-{direction}" for direction in ("fwd", "bwd")]
        found = [folder for folder in folders if read_manifest(folder) is not None]
        ships = shipped(run, slot)
        if not found and ships is not None and ships.exists():
            found = [ships]
        if len(found) != 1:
            what = f"two {_NAMES[slot]}s" if found else f"no sealed {_NAMES[slot]} in {home.resolve()}"
            raise (UsageError if found else InputError)(
                f"The run {run!r} has {what}.",
                f"Name one: {' or '.join(f'--{slot} {folder}' for folder in found or folders)}.",
            )
        folder = found[0]
    return open_artifact(folder, slot)
