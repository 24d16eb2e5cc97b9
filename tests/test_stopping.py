"""Requests to stop: the first signal asks, the second ends at once, a time limit asks by itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import stopping
from pipeline.errors import ExitCode, Stopped

ROOT = Path(__file__).parents[1]
DEEP_IN_A_LIBRARY = """
import hashlib
from pipeline import stopping
from pipeline.progress import Reporter

with stopping.signals_ask(Reporter()):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # no turn of the interpreter's loop, for minutes
"""
A_LOOP = """
import os, subprocess, sys, time
from pipeline import stopping
from pipeline.progress import Reporter

child = "import os, time; print(os.getpid(), flush=True); time.sleep(1); print('alive', flush=True)"
with stopping.signals_ask(Reporter()):
    with stopping.kept_from_children():
        process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    print("ready", flush=True)
    while stopping.asked() is None:
        time.sleep(0.01)
    print(stopping.asked(), process.communicate()[0].strip())
"""


@pytest.fixture(autouse=True)
def _nothing_asked() -> Iterator[None]:
    stopping.forget()
    yield
    stopping.forget()


def start(program: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", stopping.SIGNALS, ids=lambda n: n.name)
def test_the_first_signal_asks_and_children_never_see_it(number: signal.Signals) -> None:
    process = start(A_LOOP)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output == f"{number.name} alive\n"
    assert errors == f"{number.name}: saving and stopping; a second signal ends at once\n"


def test_the_second_signal_ends_at_once_even_inside_a_library() -> None:
    with start(DEEP_IN_A_LIBRARY) as process:
        process.send_signal(signal.SIGUSR1)
        assert process.stderr
        assert process.stderr.readline().startswith("SIGUSR1: saving")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == ExitCode.STOPPED


def test_handlers_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.progress import Reporter

    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stopping.signals_ask(Reporter()):
        os.kill(os.getpid(), signal.SIGTERM)
        while stopping.asked() is None:
            time.sleep(0.01)
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before
    assert capsys.readouterr().err.startswith("SIGTERM: saving")


def test_a_time_limit_asks_by_itself() -> None:
    stopping.stop_after(1.0)
    assert stopping.asked() is None
    stopping.stop_after(0.0)
    with pytest.raises(Stopped, match=r"^the loop was stopped by the limit of 0 minutes\. The same command goes on\.$"):
        stopping.check("the loop")
