"""Progress for people and for log files: bars on a terminal, plain lines everywhere else."""

import codecs
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

PLAIN_LINE_EVERY_S = 10.0
_UNFIT_FOR_TERMINALS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_ESCAPES = "pipeline.escapes"


def printable(text: str) -> str:
    """`text` with control characters and marks that turn the reading direction written out, as in `\\x1b`: a file name
    or label cannot act on a terminal."""
    return _UNFIT_FOR_TERMINALS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escape_what_does_not_fit(stream: TextIO) -> None:
    """Have `stream` write a character that its encoding lacks as in `\\u4e2d`, which is the same in JSON."""
    codecs.register_error(_ESCAPES, _escaped)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


class Task:
    """One counted piece of work, opened by `Reporter.task`."""

    def __init__(self, reporter: "Reporter", title: str, total: int | None, unit: str) -> None:
        self._reporter, self._title, self._total, self._unit = reporter, title, total, unit
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._bar: Any = None

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` is shown beside the count."""
        self._done += n
        if self._bar is not None:
            bar, task_id = self._bar
            bar.update(task_id, completed=self._done, note=note)
        elif time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.line(note)

    def line(self, note: str = "") -> None:
        """A plain line with count, rate and time left; does nothing where a bar shows the same."""
        if self._bar is not None:
            return
        elapsed = time.monotonic() - self._start
        rate = self._done / elapsed if elapsed > 0 else 0.0
        of = f"/{self._total:,}" if self._total is not None else ""
        left = f", {format_duration((self._total - self._done) / rate)} left" if self._total and rate else ""
        said = f", {note}" if note else ""
        self._reporter.line(f"{self._title}: {self._done:,}{of} {self._unit}, {rate:,.0f}/s{left}{said}")


class Reporter:
    """Where a stage says what it does. `stream` defaults to standard error, so that results can be piped."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr

    @property
    def interactive(self) -> bool:
        """True where bars can be drawn."""
        return self._stream.isatty()

    def line(self, text: str) -> None:
        """One plain line, flushed: a batch log must show it at once. A log that cannot be written stops no work."""
        with suppress(OSError):
            print(printable(text), file=self._stream, flush=True)

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        """Show progress of `total` units (None: unknown) until the block ends."""
        task = Task(self, title, total, unit)
        if not self.interactive:
            yield task
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
                   TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, console=Console(file=self._stream)) as bar:
            task._bar = (bar, bar.add_task(title, total=total, note=""))
            yield task


def format_duration(seconds: float) -> str:
    """`75.2` becomes `1:15`, `4000` becomes `1:06:40`."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
