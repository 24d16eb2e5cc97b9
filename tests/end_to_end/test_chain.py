"""chain.sh of `submit`, which runs the stages without Slurm: a stop is asked for once, and ends the chain."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import call

STAGE = """
import os, signal, sys, time
heard = []
def hear(number, _):
    heard.append(signal.Signals(number).name)
    if len(heard) > 1:
        print("at once", heard, flush=True)
        os._exit(75)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, hear)
print("started", sys.argv[1], os.getpid(), flush=True)
while not heard:
    time.sleep(0.01)
time.sleep({saving})
print("saved", heard, flush=True)
sys.exit({code})
"""
"""A stage that waits for a signal and takes some time to save."""


class Chain:
    """A chain.sh of two stages, running in a session of its own as in a terminal."""

    def __init__(self, folder: Path, saving: float, code: int | str) -> None:
        (folder / "stage.py").write_text(STAGE.format(saving=saving, code=code), encoding="utf-8")
        for job in folder.glob("0*.sh"):
            job.write_text(f"exec {sys.executable} {folder / 'stage.py'} {job.stem}\n", encoding="utf-8")
        self.said = folder / "said"
        with self.said.open("w") as stream:
            self.process = subprocess.Popen(
                ["env", "--default-signal=INT,TERM,HUP", "bash", str(folder / "chain.sh")], stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )
        self.stage = 0

    def lines(self) -> list[str]:
        """What it wrote so far, in whole lines."""
        return self.said.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()

    def wait_for(self, number: int) -> None:
        """Until it has written so many lines."""
        deadline = time.monotonic() + 30
        while len(self.lines()) < number:
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.02)

    def group(self, number: int) -> None:
        """As a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self) -> None:
        """Whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for line in self.lines():
            with contextlib.suppress(ProcessLookupError):
                if line.startswith("started "):
                    os.kill(int(line.split()[2]), signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Chain]]:
    """Starts a chain, and leaves nothing of it behind."""
    call("submit", "--recipe", "smoke", "--source", "x.csv", "--until", "tokenize_corpus", "--dry-run", "--home",
         str(tmp_path))
    chains = []

    def started(saving: float = 0.5, code: int | str = 75) -> Chain:
        chains.append(Chain(tmp_path / "data/smoke/slurm", saving, code))
        chains[-1].wait_for(1)
        chains[-1].stage = int(chains[-1].lines()[0].split()[2])
        return chains[-1]

    yield started
    for chain in chains:
        chain.end()


def ctrl_c(chain: Chain) -> None:
    chain.group(signal.SIGINT)


def kill(chain: Chain) -> None:
    chain.process.terminate()


def timeout(chain: Chain) -> None:
    """The program of this name signals the script, and then the group of it."""
    chain.process.terminate()
    chain.group(signal.SIGTERM)


def hang_up(chain: Chain) -> None:
    chain.group(signal.SIGHUP)


@pytest.mark.parametrize("stop", [ctrl_c, kill, timeout, hang_up])
def test_a_stop_lets_the_stage_save_and_ends_the_chain(
    start: Callable[..., Chain], stop: Callable[[Chain], None]
) -> None:
    chain = start()
    stop(chain)
    assert chain.process.wait(30) == 75
    assert chain.lines() == [f"started 01-prepare_corpus {chain.stage}", "saved ['SIGTERM']"]
    assert not Path(f"/proc/{chain.stage}").exists()
    log = chain.said.with_name("logs") / "01-prepare_corpus.log"
    assert log.read_text(encoding="utf-8") == chain.said.read_text(encoding="utf-8")


def test_no_stage_follows_one_that_was_asked_to_stop_and_ended_well(start: Callable[..., Chain]) -> None:
    chain = start(code=0)
    ctrl_c(chain)
    assert chain.process.wait(30) == 75
    assert len(chain.lines()) == 2


def test_a_stage_that_could_not_hear_yet_was_stopped_not_failed(start: Callable[..., Chain]) -> None:
    chain = start(code="(signal.signal(signal.SIGTERM, signal.SIG_DFL), os.kill(os.getpid(), signal.SIGTERM))")
    ctrl_c(chain)
    assert chain.process.wait(30) == 75
    assert len(chain.lines()) == 2


def test_asked_again_the_stage_ends_at_once(start: Callable[..., Chain]) -> None:
    chain = start(saving=60)
    ctrl_c(chain)
    time.sleep(2.5)  # what comes sooner is the same request
    ctrl_c(chain)
    assert chain.process.wait(30) == 75
    assert chain.lines()[1:] == ["at once ['SIGTERM', 'SIGTERM']"]


def test_a_stage_that_stopped_by_itself_goes_on(start: Callable[..., Chain]) -> None:
    chain = start(saving=0)
    os.kill(chain.stage, signal.SIGUSR1)
    chain.wait_for(3)
    assert chain.lines()[2].startswith("started 01-prepare_corpus ")
    chain.process.terminate()
    assert chain.process.wait(30) == 75
    assert len(chain.lines()) == 4
