"""Requests to stop: signals and a time limit set a flag, every loop asks for it, nothing happens inside a handler.

The first SIGTERM, SIGUSR1 or SIGINT asks the stage to save and stop; the second ends the process at once, which loses
no more than a kill would. Signals are read by a thread, so that they are seen while the main thread is deep in a
library.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

from pipeline.errors import ExitCode, Stopped
from pipeline.progress import Reporter

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class _Request:
    reason: str | None = None
    deadline: float | None = None
    limit_min: float | None = None
    elsewhere: Callable[[], str | None] | None = None


_request = _Request()


def ask(reason: str) -> None:
    """Ask whatever runs to save and stop; `reason` ends up in its last message."""
    _request.reason = reason


def stop_after(minutes: float | None) -> None:
    """Ask for a stop that many minutes from now; None: never."""
    _request.limit_min = minutes
    _request.deadline = None if minutes is None else time.monotonic() + 60 * minutes


def listen_to(elsewhere: Callable[[], str | None]) -> None:
    """Have `asked` look there too; it must be cheap."""
    _request.elsewhere = elsewhere


def forget() -> None:
    """Withdraw every request."""
    _request.reason = None
    stop_after(None)


def asked() -> str | None:
    """Why the process should stop, or None. Cheap: for every turn of every loop."""
    if _request.reason is None and _request.deadline is not None and time.monotonic() >= _request.deadline:
        _request.reason = f"the limit of {_request.limit_min:g} minutes"
    if _request.reason is None and _request.elsewhere is not None:
        _request.reason = _request.elsewhere()
    return _request.reason


def check(where: str) -> None:
    """Raise Stopped if a stop was asked for. Call it where nothing is lost by it."""
    obey(asked(), where)


def obey(reason: str | None, where: str) -> None:
    """Raise Stopped if there is a reason to."""
    if reason is not None:
        raise Stopped(f"{where} was stopped by {reason}.", "The same command goes on.")


@contextlib.contextmanager
def signals_ask(reporter: Reporter, doing: str = "saving and stopping") -> Iterator[None]:
    """Let the signals ask for a stop until the block ends; `doing` tells what follows. Only the main thread may enter.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # What was ignored stays so: shells make their background jobs deaf to Ctrl-C.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _noted) for number in heard}
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reader, reporter, doing), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)  # ends the thread
        thread.join()
        os.close(reader)


def _noted(_signal: int, _frame: object) -> None:
    """Python must have a handler for the number of the signal to be written to the pipe; the thread does the rest."""


def _listen(reader: int, reporter: Reporter, doing: str) -> None:
    while numbers := os.read(reader, 64):
        for number in numbers:
            if number not in SIGNALS:
                continue
            name = signal.Signals(number).name
            if _request.reason is not None:
                os._exit(ExitCode.STOPPED)
            ask(name)
            reporter.line(f"{name}: {doing}; a second signal ends at once")


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes started in this block never see the signals: batch systems send them to all processes of a job, and
    the parent decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
