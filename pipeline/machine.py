"""What the machine does to a stage: disks that are full, memory that runs out, and how much memory was used."""

import errno
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import OutOfMemoryError, PipelineError, StorageError

_ROOM_OR_RIGHTS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG,
}
_PATHS = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY}
_NO_DISK = (FileNotFoundError, ConnectionError, ChildProcessError, ProcessLookupError, InterruptedError)
"""Not of a disk: the reader of our output is gone, for one. A file that is missing where it has to be is a defect."""
_OF_DESCRIPTORS = {
    errno.EBADF, errno.EINVAL, errno.ENOTTY, errno.ESPIPE, errno.EAGAIN, errno.EADDRINUSE, errno.EADDRNOTAVAIL,
    errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOTCONN, errno.ENOTSOCK, errno.EMSGSIZE,
}
"""Where no file is named, these are of a socket or a terminal, or a defect."""
_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_SHORT_WRITE = re.compile(r"^\d+ requested and \d+ written$")
"""All that numpy's tofile says when the disk is full."""


def limit_behind(error: Exception, stage: str, smaller: str = "") -> PipelineError | None:
    """The StorageError or OutOfMemoryError that `error`, raised inside `stage`, comes down to; None for defects.

    safetensors, pyarrow and torch have exceptions of their own for these, so the text counts beside the type.
    `smaller` is the command that would ask for less memory.
    """
    number, filename, text = getattr(error, "errno", None), getattr(error, "filename", None), str(error)
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or number == errno.ENOMEM
        or "can't allocate memory" in text
    ):
        where = "The same command goes on where there is more memory"
        return OutOfMemoryError(
            f"{stage} ran out of memory.", f"{where}; here, try {smaller}" if smaller else f"{where}."
        )
    told = next((full for full in _FULL if full in text), None)
    if _is_of_a_disk(error) or told or _SHORT_WRITE.search(text):
        where = f" ({os.fsdecode(filename)})" if isinstance(filename, str | bytes) else ""
        reason = os.strerror(number) if isinstance(number, int) else told or f"the disk is full ({text})"
        return StorageError(f"{stage} could not read or write{where}: {reason}.", _mend(number))
    return None


def _is_of_a_disk(error: Exception) -> bool:
    """True for what the system says of a file: libraries number their own OSErrors (of TLS, of names) otherwise."""
    if not isinstance(error, OSError) or type(error).__module__ != "builtins" or error.errno is None:
        return False
    return not isinstance(error, _NO_DISK) and (error.filename is not None or error.errno not in _OF_DESCRIPTORS)


def _mend(number: int | None) -> str:
    if number in _PATHS:
        first = "Correct the path, or move what is in the way"
    elif number is None or number in _ROOM_OR_RIGHTS:
        first = "Free some space or mend the permissions"
    else:
        first = "See that the file system answers"
    return f"{first}, then give the same command again; finished stages are kept."


@contextmanager
def limits_told(command: str, smaller: str = "") -> Iterator[None]:
    """Raise what `limit_behind` makes of an error in the block, where it makes something of it; `smaller` as there."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        expected = limit_behind(error, command, smaller)
        if expected is None:
            raise
        raise expected from error


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reset_peak_memory() -> None:
    """Start measuring the peak anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is then that of the whole process so far
        return


def peak_memory_mb() -> float:
    """Largest resident memory since the last reset, in MB."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_of_workers_mb() -> float:
    """Largest resident memory of any one child process that has ended, in MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
