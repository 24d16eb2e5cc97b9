"""Several processes make one result on the command line: stopped, killed, gone on with, by torchrun and by hand."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ROOT, call, manifest

LIMIT_S = 600
"""For a loaded machine; what is waited for takes seconds."""
LONGER = (
    "finetune_lm.phases=[{name='a', lr=0.01, epochs=3}]", "train_classifier.phases=[{name='b', lr=0.01, epochs=6}]",
    "finetune_lm.log_every=1", "train_classifier.log_every=1", "finetune_lm.checkpoint_steps=3",
    "train_classifier.checkpoint_steps=2",
)
WEIGHTS = (
    "lm-fwd/encoder.safetensors", "lm-fwd/decoder.safetensors", "classifier-fwd/encoder.safetensors",
    "classifier-fwd/head.safetensors",
)


class Job:
    """The processes of a training, and what they say; whatever is left of them ends with the block."""

    def __init__(self, log: Path, commands: list[list[str]], environments: list[dict[str, str]]) -> None:
        self.log = log
        with log.open("w", encoding="utf-8") as stream:
            self.processes = [
                subprocess.Popen(
                    command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                )
                for command, environment in zip(commands, environments, strict=True)
            ]

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    @property
    def said(self) -> str:
        """Everything so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str) -> None:
        """Until one of the processes says `text`."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            assert all(process.poll() is None for process in self.processes), self.said
            time.sleep(0.02)

    def ends(self) -> list[int]:
        """Their exit codes."""
        return [process.wait(timeout=LIMIT_S) for process in self.processes]


def torchrun(log: Path, *words: str) -> Job:
    """Two processes, as a user would start them."""
    return Job(log, [[sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *words]], [{}])


def by_hand(log: Path, *words: str) -> Job:
    """Two processes that nothing watches over, as job files start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environments = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
         "MASTER_PORT": str(port)}
        for rank in (0, 1)
    ]
    return Job(log, [[sys.executable, "-m", "pipeline", *words]] * 2, environments)


@pytest.fixture(scope="module")
def training(finished: Path, arguments: list[str]) -> list[str]:
    """Language model and classifier on the ids of a finished run."""
    settings = [f"inputs.ids={finished / 'data/smoke/ids'}", *LONGER]
    return [
        "--from", "finetune_lm", "--until", "train_classifier", *arguments,
        *(word for setting in settings for word in ("--set", setting)),
    ]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, training: list[str]) -> tuple[Path, str]:
    """Home of an undisturbed training by two processes, and what they said."""
    home = tmp_path_factory.mktemp("unbroken")
    with torchrun(home / "log", "--", "scripts/run_all.py", *training, "--home", str(home)) as job:
        assert job.ends() == [0], job.said
        return home, job.said


@pytest.mark.timeout(2 * LIMIT_S)
def test_one_process_writes_and_talks_and_the_result_is_that_of_any_number(
    unbroken: tuple[Path, str], training: list[str]
) -> None:
    home, said = unbroken
    for stage, folder in (("finetune_lm", "lm-fwd"), ("train_classifier", "classifier-fwd")):
        assert said.count(f"{stage}: sealed") == said.count(f"{stage}: starting") == 1
        assert f"{stage}: device cpu, precision fp32, 2 processes" in said
        assert manifest(home / "models/smoke" / folder)["metrics"]["processes"] == 2
    again = call("run", *training, "--home", str(home))  # one process: their number is not in the fingerprint
    assert again.stderr.count("nothing changed") == 2
    assert not list(home.rglob(".*.partial"))


@pytest.mark.timeout(6 * LIMIT_S)
def test_stopped_and_killed_it_goes_on_to_the_same_bits(
    unbroken: tuple[Path, str], training: list[str], tmp_path: Path
) -> None:
    words = ("run", *training, "--home", str(tmp_path))
    with by_hand(tmp_path / "stopped", *words) as job:
        job.wait_for("finetune_lm a 1/3: step 4/")
        job.processes[1].send_signal(signal.SIGUSR1)
        assert job.ends() == [75, 75], job.said
        assert "was stopped by " in job.said
    checkpoints = tmp_path / "models/smoke/.lm-fwd.partial/resume/checkpoints"
    assert list(checkpoints.glob("checkpoint-*"))
    with by_hand(tmp_path / "killed", *words) as job:
        job.wait_for("train_classifier b 2/6: step 2/")
        job.processes[1].kill()
        assert job.ends() == [75, -signal.SIGKILL], job.said
        assert "Rank 1 of 2 was lost. The same command goes on from the last checkpoint." in job.said
        assert "Traceback" not in job.said
    with by_hand(tmp_path / "killed-0", *words) as job:
        job.wait_for("train_classifier b 4/6: step 2/")
        job.processes[0].kill()
        assert job.ends() == [-signal.SIGKILL, 75], job.said
        assert "error: Rank 0 " in job.said
        assert "Traceback" not in job.said
    with torchrun(tmp_path / "end", "-m", "--", "pipeline", *words) as job:
        assert job.ends() == [0], job.said
        assert "train_classifier: going on after step" in job.said
    for name in WEIGHTS:
        ours, theirs = (home / "models/smoke" / name for home in (tmp_path, unbroken[0]))
        assert ours.read_bytes() == theirs.read_bytes(), name


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_rank_that_hangs_is_not_waited_for(training: list[str], tmp_path: Path) -> None:
    words = ("finetune_lm", *training[4:], "--set", "run.rank_timeout_s=15", "--home", str(tmp_path))
    with by_hand(tmp_path / "log", *words) as job:
        job.wait_for("finetune_lm a 1/3: step 4/")
        job.processes[1].send_signal(signal.SIGSTOP)
        assert job.processes[0].wait(timeout=LIMIT_S) == 75, job.said
        assert "Rank 1 of 2 was lost: it did not answer for 15 seconds. The same command goes on" in job.said
        assert "Traceback" not in job.said


@pytest.mark.timeout(2 * LIMIT_S)
def test_an_error_of_rank_0_is_everyones(training: list[str], tmp_path: Path) -> None:
    words = ("finetune_lm", *training[4:], "--set", "finetune_lm.bs=1", "--home", str(tmp_path))
    with by_hand(tmp_path / "log", *words) as job:
        assert job.ends() == [2, 2], job.said
        assert job.said.count("error: finetune_lm.bs is 1, and there are 2 processes") == 1
        assert "Traceback" not in job.said
