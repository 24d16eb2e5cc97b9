"""What ranks say to each other outside of training: two real processes at one store."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEGIN = """
import io, os, sys, time
from pipeline import ranks, stopping
from pipeline.errors import DataError, PipelineError
from pipeline.progress import Reporter
here = ranks.join()
assert "RANK" not in os.environ and "WORLD_SIZE" not in os.environ
"""
PREPARE = """
try:
    here.assemble()
except PipelineError as error:
    print(type(error).__name__, int(error.exit_code), error, flush=True)
    here.dismiss(int(error.exit_code))
"""
CANNOT_PREPARE = """
here.fail(DataError("There is no text.", "Add some."))
try:
    for order in here.orders():
        raise AssertionError(order)
except ranks.Dismissed as end:
    sys.exit(end.exit_code)
"""
GIVE = """
from pathlib import Path
from types import SimpleNamespace
recipe = SimpleNamespace(model_dump=lambda mode: {})
here.give("finetune_lm", SimpleNamespace(
    recipe=recipe, fingerprint="", inputs={}, work=Path("work"), resuming=False))
"""
CANNOT_OBEY = """
orders = 0
try:
    for order in here.orders():
        orders += 1
        here.fail(DataError("There is no text.", "Add some."))
except ranks.Dismissed as end:
    print(orders)
    sys.exit(end.exit_code)
"""
WORK = """
while not (reason := stopping.asked()):
    time.sleep(0.05)
print(reason, flush=True)
here.dismiss(75)
"""
FOLLOW = """
with stopping.signals_ask(Reporter(io.StringIO())):
    print("waiting", flush=True)
    try:
        next(here.orders())
    except ranks.Dismissed as end:
        sys.exit(end.exit_code)
"""


def start(rank: str, size: str, code: str, port: int = 0) -> subprocess.Popen[str]:
    environment = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )


def two(of_first: str, of_second: str) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return start("0", "2", of_first, port), start("1", "2", of_second, port)


def test_what_one_rank_cannot_do_is_the_error_of_rank_0() -> None:
    first, second = two(PREPARE, CANNOT_PREPARE)
    said = first.communicate()[0]
    assert said.strip() == "PipelineError 4 Rank 1: There is no text. Add some."
    assert (second.communicate()[0], second.returncode) == ("", 4)


def test_an_order_that_cannot_be_carried_out_is_not_tried_again() -> None:
    first, second = two(GIVE + PREPARE, CANNOT_OBEY)
    assert "PipelineError 4 Rank 1: There is no text." in first.communicate()[0]
    assert (second.communicate()[0], second.returncode) == ("1\n", 4)


def test_a_signal_to_a_rank_that_waits_stops_rank_0() -> None:
    first, second = two(WORK, FOLLOW)
    assert second.stdout is not None
    assert second.stdout.readline() == "waiting\n"
    second.send_signal(signal.SIGUSR1)
    assert first.communicate()[0].strip() == "SIGUSR1 to rank 1"
    second.communicate()
    assert second.returncode == 75


def test_a_rank_that_waits_ends_when_rank_0_is_killed() -> None:
    first, second = two(WORK, FOLLOW)
    assert second.stdout is not None
    assert second.stdout.readline() == "waiting\n"
    first.kill()
    first.communicate()
    assert "LostRankError" in second.communicate()[0]


def test_a_process_that_is_alone_meets_nobody() -> None:
    alone = start("0", "1", "assert here is ranks.ALONE and 'torch' not in sys.modules")
    assert (alone.communicate()[0], alone.returncode) == ("", 0)


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("x", "2"), ("0", "0")])
def test_an_environment_that_names_no_process_is_refused(rank: str, size: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "recipes"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "RANK": rank, "WORLD_SIZE": size},
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: The environment names no process of a job: RANK is {rank!r}, WORLD_SIZE is {size!r}. "
        "Unset them, or use torchrun.\n"
    )
