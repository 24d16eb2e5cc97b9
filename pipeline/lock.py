"""The only right to write an artifact: two jobs that are started for the same run never mix their files."""

import contextlib
import json
import shlex
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import LockedError
from pipeline.provenance import this_process

POLL_S = 0.2


@contextlib.contextmanager
def in_turn(path: Path, poll: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` once nobody else does; `poll` is called while waiting and may raise."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    while not lock.is_locked:
        with contextlib.suppress(Timeout), _without_its_warning():
            lock.acquire(timeout=POLL_S)
        if not lock.is_locked:
            poll()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def locked(target: Path, *, passing: bool = False) -> Iterator[None]:
    """Hold the only right to write `target`; LockedError names host, pid and job of who holds it.

    The lock is the kernel's, so it ends with its process however that ends: a killed job leaves none behind. Where the
    file system has no such locks its file is the lock, and the error names it too. Its file stays beside `target`,
    unless it is `passing`.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    target.parent.mkdir(parents=True, exist_ok=True)
    lock_path = target.with_name(f".{target.name}.lock")
    owner_path = target.with_name(f".{target.name}.owner.json")
    lock = FileLock(lock_path, timeout=0)
    try:
        with _without_its_warning():
            lock.acquire()
    except Timeout:
        try:
            holder = json.loads(owner_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            holder = {}
        job = f", job {holder['job_id']}" if holder.get("job_id") else ""
        mend = "Wait for it, or choose another --run."
        if isinstance(lock, SoftFileLock):
            remove = f"rm {shlex.quote(str(lock_path))}"
            mend += f" This disk has no locks that end with their process: if it is surely gone, {remove}"
        raise LockedError(
            f"{target} is being written by process {holder.get('pid', '?')} on host {holder.get('host', '?')}{job}.",
            mend,
        ) from None
    try:
        owner_path.write_text(json.dumps(this_process()), encoding="utf-8")
        try:
            yield
        finally:
            owner_path.unlink(missing_ok=True)
            if passing:  # while it is held: a moment later the file may be the lock of another
                lock_path.unlink(missing_ok=True)
    finally:
        lock.release()


@contextlib.contextmanager
def _without_its_warning() -> Iterator[None]:
    """Filelock warns where the file system has no locks of the kernel; LockedError tells it when it matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flock not supported", UserWarning)
        yield
