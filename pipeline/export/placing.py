"""Files for others: made apart, put in place when all are finished, so that each is complete or absent."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline import machine
from pipeline.artifact import hash_file
from pipeline.errors import InputError, LockedError
from pipeline.lock import locked
from pipeline.storage import move_into_place, open_to_others, sync

COMMAND = "export"
_WORK = f".{COMMAND}.tmp"


@contextlib.contextmanager
def placed(output: Path, *, force: bool, alone: bool = False, last: str = "") -> Iterator[Path]:
    """A folder to write into; when the block ends, its files move into the folder `output`, `last` after all others.

    A file that is there already with the same content stays; with another it is replaced only with `force`. `alone`:
    `output` may hold nothing else, for the folder is to be used, or published, as a whole. Raises InputError for what
    is in the way; nothing is moved then. LockedError if another export works on `output`; StorageError and
    OutOfMemoryError stand for what the machine refuses.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file, not a folder.", "Name another --output.")
    work, is_new = output / _WORK, not output.exists()
    with machine.limits_told(COMMAND):
        output.mkdir(parents=True, exist_ok=True)
        try:
            with locked(work, passing=True):
                shutil.rmtree(work, ignore_errors=True)  # of an export that was killed
                work.mkdir()
                try:
                    yield work
                    _move(work, output, force, alone, last)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        except LockedError as error:
            raise LockedError(error.what, "Wait for it, or choose another --output.") from error
        finally:
            if is_new:
                with contextlib.suppress(OSError):  # not empty: all went well
                    output.rmdir()


def _move(work: Path, output: Path, force: bool, alone: bool, last: str) -> None:
    names = [path.relative_to(work) for path in sorted(work.rglob("*")) if path.is_file()]
    names.sort(key=lambda name: str(name) == last)
    for name in names:
        there = output / name
        if there.exists() and not force and hash_file(there) != hash_file(work / name):
            raise InputError(f"{there} is there already and holds something else.", "Replace it with --force.")
    if alone:
        _check_alone(output, set(names))
    for name in names:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        open_to_others(work / name)
        sync(work / name)
        move_into_place(work / name, output / name)


def _check_alone(output: Path, names: set[Path]) -> None:
    there = (path.relative_to(output) for path in sorted(output.rglob("*")) if path.is_file())
    stranger = next((name for name in there if _WORK not in name.parts[0] and name not in names), None)
    if stranger is not None:
        raise InputError(
            f"{output / stranger} is there already and no part of this export.", "Remove it, or name another --output."
        )
