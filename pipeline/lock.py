"""The only right to write an artifact: two jobs that are started for the same run never mix their files."""

import contextlib
import json
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
        with contextlib.suppress(Timeout):
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

    The lock is the kernel's, so it ends with its process however that ends: a killed job leaves none behind. Its file
    stays beside `target`, unless it is `passing`.
    """
    from filelock import FileLock, Timeout

    target.parent.mkdir(parents=True, exist_ok=True)
    lock_path = target.with_name(f".{target.name}.lock")
    owner_path = target.with_name(f".{target.name}.owner.json")
    try:
        with FileLock(lock_path, timeout=0):
            owner_path.write_text(json.dumps(this_process()), encoding="utf-8")
            try:
                yield
            finally:
                owner_path.unlink(missing_ok=True)
                if passing:  # while it is held: a moment later the file may be the lock of another
                    lock_path.unlink(missing_ok=True)
    except Timeout:
        try:
            holder = json.loads(owner_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            holder = {}
        job = f", job {holder['job_id']}" if holder.get("job_id") else ""
        raise LockedError(
            f"{target} is being written by process {holder.get('pid', '?')} on host {holder.get('host', '?')}{job}.",
            "Wait for it, or choose another --run.",
        ) from None
