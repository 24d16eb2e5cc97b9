"""Unfinished artifacts: the hidden folder in which one is made, and what it was asked for.

A stage that is stopped leaves this folder behind. The next attempt goes on in it if it was asked for the same.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.storage import write_durably

RESUME = "resume"
"""Folder of the work folder that only an interrupted stage needs."""
ATTEMPT = "attempt.json"
CHECKPOINTS = "checkpoints"
"""File and folder of the resume folder: what the attempt was asked for, and how far its training has come."""


class Attempt(BaseModel):
    """What an unfinished stage was asked for, as far as its fingerprint knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    code_version: int = 0
    settings: dict[str, dict[str, Any]] = {}
    inputs: dict[str, str] = {}
    """Fingerprints."""
    spent_s: float = 0.0
    """What earlier starts of it took, each until the last thing that it kept."""
    checkpoints: int = 0
    """How many checkpoints lie in its work folder."""


def partial_path(target: Path) -> Path:
    """Where the unfinished artifact of `target` is made."""
    return target.with_name(f".{target.name}.partial")


def parts_path(target: Path, fingerprint: str) -> Path:
    """Where several jobs put their shares of the artifact `fingerprint` that `target` will be."""
    return target.with_name(f".{target.name}.parts-{fingerprint[:16]}")


def open_partial(
    target: Path, fingerprint: str, *, code_version: int = 0, settings: dict[str, dict[str, Any]] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> tuple[Path, bool]:
    """The work folder of `target` and whether it holds an earlier attempt with the same fingerprint.

    `inputs` are fingerprints. An attempt with another fingerprint is removed: its pieces do not belong to this
    artifact. Of one with the same fingerprint the resume folder is kept: other files may be halves, or temporary
    files of a library that was killed, and everything in the work folder is sealed.
    """
    partial, earlier = partial_path(target), unfinished(target)
    if earlier is not None and earlier.fingerprint == fingerprint:
        _clear_but_resume(partial)
        _write(partial, earlier.model_copy(update={"spent_s": earlier.spent_s + _last_start_s(partial)}))
        return partial, True
    if partial.exists():
        shutil.rmtree(partial)
    (partial / RESUME).mkdir(parents=True)
    attempt = Attempt(
        fingerprint=fingerprint, code_version=code_version, settings=settings or {}, inputs=dict(inputs or {})
    )
    _write(partial, attempt)
    return partial, False


def _write(partial: Path, attempt: Attempt) -> None:
    """The record of an attempt. Its time stamp tells when the attempt was last started."""
    write_durably(partial / RESUME / ATTEMPT, attempt.model_dump_json(indent=2, exclude={"checkpoints"}) + "\n")


def _last_start_s(partial: Path) -> float:
    """How long the last start worked until it kept something, by the time stamps of one disk: a kill says nothing."""
    kept = (path.stat().st_mtime for path in (partial / RESUME).rglob("*"))
    return max(kept) - (partial / RESUME / ATTEMPT).stat().st_mtime


def _clear_but_resume(partial: Path) -> None:
    for path in partial.iterdir():
        if path.name == RESUME:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def unfinished(target: Path) -> Attempt | None:
    """The unfinished attempt at `target`, if there is one that can be read."""
    resume = partial_path(target) / RESUME
    try:
        attempt = Attempt.model_validate_json((resume / ATTEMPT).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return attempt.model_copy(update={"checkpoints": len(list((resume / CHECKPOINTS).glob("checkpoint-*")))})
