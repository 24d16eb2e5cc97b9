"""The errors a user can cause, and the exit code of each.

Every message is one or two sentences: what is wrong and where, then the command or setting that mends it.
`pipeline.cli` prints them without a traceback; any other exception is a defect of the program and keeps its traceback.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command and script."""

    SEALED = 0
    USAGE = 2
    INPUT = 3
    DATA = 4
    DIVERGED = 5
    OUT_OF_MEMORY = 6
    STORAGE = 7
    LOCKED = 8
    STOPPED = 75


class PipelineError(Exception):
    """An expected error. `what` says what is wrong and where; `mend` says what to do about it."""

    exit_code: ExitCode

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = what
        self.mend = mend
        super().__init__(what, mend)

    def __str__(self) -> str:
        """Both sentences; not from `args`, to which fastai adds text when an error passes through a callback."""
        return f"{self.what} {self.mend}".strip()


class UsageError(PipelineError):
    """A command line, recipe or setting that cannot be right."""

    exit_code = ExitCode.USAGE


class InputError(PipelineError):
    """An input that is missing, damaged or refused: a file, an archive, an artifact."""

    exit_code = ExitCode.INPUT


class DataError(PipelineError):
    """Input that could be read but holds data no stage can work with."""

    exit_code = ExitCode.DATA


class DivergedError(PipelineError):
    """Training that ended in NaN or infinity."""

    exit_code = ExitCode.DIVERGED


class OutOfMemoryError(PipelineError):
    """Training that asked for more memory than there is."""

    exit_code = ExitCode.OUT_OF_MEMORY


class StorageError(PipelineError):
    """A disk that is full or refuses to be written or read."""

    exit_code = ExitCode.STORAGE


class LockedError(PipelineError):
    """An artifact folder that another job is working on."""

    exit_code = ExitCode.LOCKED


class Stopped(PipelineError):
    """A stage stopped by a signal; the same command goes on."""

    exit_code = ExitCode.STOPPED


class LostRankError(Stopped):
    """Another process of the same job ended in the middle of the work; the same command goes on."""
