"""A child's side of a measurement: it waits for its turn, does one repeat, and waits again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline import machine
from pipeline.benchmark.sizes import Sizes

GO, END = "go", "end"


class Finished(BaseException):
    """There are no more repeats; not an Exception, so that nothing on the way takes it for a failure."""


@dataclass(frozen=True)
class Work:
    """What a side is given."""

    shared: Path
    """What was prepared for all sides."""
    own: Path
    """An empty folder for what this side writes."""
    sizes: Sizes
    parameters: dict[str, Any]
    source: Path | None
    """The archive to read, if one was given and the case uses it."""


class Turns:
    """The pipe to the parent and the clock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._message: dict[str, Any] = {}
        self._peak_mb = 0.0
        self._started = 0.0

    def tell(self, **facts: Any) -> None:
        """Facts about this side, sent with the news that it is warm."""
        self._message |= facts

    def imported(self) -> None:
        """Imports are done; idle until it is this side's turn to warm up."""
        self._connection.send({})
        if self._connection.recv() != GO:
            raise Finished

    def wait(self) -> None:
        """Report what was measured, or that this side is warm; idle until the next turn, then start the clock.

        Raises Finished if there is no next turn.
        """
        self.note_peak()
        self._connection.send(self._message)
        self._message = {}
        if self._connection.recv() != GO:
            raise Finished
        self._started = time.perf_counter()

    def stop(self, units: float, seconds: Sequence[float] | None = None, **facts: Any) -> None:
        """Stop the clock: `units` of work were done. `seconds` replaces the clock's reading, one figure for each of
        several measurements; `facts` go with them."""
        taken = [time.perf_counter() - self._started] if seconds is None else list(seconds)
        self._message = {"units": units, "seconds": taken, **facts}

    def note_peak(self) -> None:
        """Take in the peak memory so far; call it before it is reset, as every stage does.

        It is that of the largest process: this one, or one of its workers that have ended.
        """
        self._peak_mb = max(self._peak_mb, machine.peak_memory_mb(), machine.peak_of_workers_mb())

    @property
    def peak_mb(self) -> float:
        """Largest resident memory, in MB."""
        return self._peak_mb
