"""A real Slurm: whole chains through `submit`, and jobs that are preempted, warned, out of time or requeued."""

import hashlib
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import write_reviews
from slurm_cluster import MISSING, Cluster, running_cluster

pytestmark = [
    pytest.mark.slurm, pytest.mark.skipif(MISSING is not None, reason=str(MISSING)), pytest.mark.timeout(1800),
]

SETTINGS = (
    "prepare_corpus.split_column=split", "run.device=cpu", "tokenize_corpus.workers=1",
    "finetune_lm.checkpoint_steps=5", "train_classifier.checkpoint_steps=5", "finetune_lm.n_hid=64",
    "evaluate_classifier.baseline=false",
    "finetune_lm.phases=[{name='a', lr=0.01, epochs=6}]", "train_classifier.phases=[{name='a', lr=0.01, epochs=6}]",
    "slurm.restarts=50",
)
CLEARED_S = 4.0
"""A job that starts again sooner may find its node still clearing up, which Slurm takes for a failure ("credential
revoked"); left alone it waits two minutes."""
DISTURBANCES = ("preempt", "requeue", "warn", "limit")
ENDED_WELL = {"COMPLETED"}
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Slurm of one node."""
    with running_cluster(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Path:
    """Home of an undisturbed run `whole`, made by the cluster."""
    home = tmp_path_factory.mktemp("home")
    write_reviews(home / "reviews.csv")
    jobs = submit(cluster, home, "whole", "--source", "reviews.csv")
    assert len(jobs) == 6
    wait(cluster, home, "whole", jobs)
    return home


def pipeline(cluster: Cluster, home: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words], cwd=home, env={**cluster.environment, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submit(cluster: Cluster, home: Path, run: str, *more: str) -> list[str]:
    """Job ids, in the order of the stages."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    pipeline(cluster, home, "submit", "--recipe", "smoke", "--run", run, *settings, *more)
    return [row["id"] for row in json.loads((home / f"data/{run}/slurm/jobs.json").read_text(encoding="utf-8"))]


def sealed(home: Path, run: str, stage: str) -> bool:
    folders = {"finetune_lm": "lm-fwd", "train_classifier": "classifier-fwd", "evaluate_classifier": "evaluation"}
    return (home / "models" / run / folders[stage] / "manifest.json").exists()


def logs(home: Path, run: str) -> str:
    folder = home / "data" / run / "slurm/logs"
    return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-1500:]}" for log in sorted(folder.glob("*.log")))


def watched(cluster: Cluster, home: Path, run: str, jobs: list[str], seconds: float = 600) -> Iterator[list[str]]:
    """The states of the jobs again and again until all ended well; a job that stays ended otherwise fails the test.

    While it is put into the queue again, a job is FAILED for a moment.
    """
    deadline, bad_since = time.monotonic() + seconds, None
    while (states := [cluster.state(job) for job in jobs]) and set(states) != ENDED_WELL:
        bad = bool(set(states) & (ENDED - ENDED_WELL))
        bad_since = (bad_since or time.monotonic()) if bad else None
        assert bad_since is None or time.monotonic() - bad_since < 15, (run, states, logs(home, run))
        assert time.monotonic() < deadline, (run, states, logs(home, run))
        yield states
        time.sleep(0.3)


def watched_and_freed(cluster: Cluster, home: Path, run: str, jobs: list[str]) -> Iterator[list[str]]:
    """As `watched`; jobs that were put into the queue again start soon, once their node is cleared."""
    pending_since = dict.fromkeys(jobs, math.inf)
    for states in watched(cluster, home, run, jobs):
        yield states
        for job, state in zip(jobs, states, strict=True):
            pending_since[job] = min(pending_since[job], time.monotonic()) if state == "PENDING" else math.inf
            if time.monotonic() - pending_since[job] > CLEARED_S:
                cluster.free(job)


def wait(cluster: Cluster, home: Path, run: str, jobs: list[str]) -> None:
    for _ in watched(cluster, home, run, jobs):
        pass


def disturb(cluster: Cluster, job: str, how: str) -> None:
    """One thing that happens to jobs on clusters; what is not possible at the moment does not happen."""
    if how == "preempt":
        cluster.call("sbatch", "--parsable", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
        return
    # Less time than its warning, so that it is warned at once; what it has used up already would end it unwarned.
    minutes = cluster.call("squeue", "--noheader", "--states=all", "--format=%M", f"--jobs={job}").split(":")[0]
    words = {
        "requeue": ("scontrol", "requeue", job), "warn": ("scancel", "--signal=USR1", job),
        "limit": ("scontrol", "update", f"jobid={job}", f"TimeLimit={int(minutes) + 2}"),
    }[how]
    subprocess.run(words, env=cluster.environment, check=False, capture_output=True, timeout=60)


def contents(home: Path, run: str) -> dict[str, str]:
    """SHA-256 of the weights and predictions of a run."""
    folder = home / "models" / run
    files = [*folder.glob("*/*.safetensors"), folder / "evaluation/predictions.parquet"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_submit_runs_the_whole_chain_and_status_shows_its_jobs(cluster: Cluster, home: Path) -> None:
    for stage in ("finetune_lm", "train_classifier", "evaluate_classifier"):
        assert sealed(home, "whole", stage)
    found = json.loads(pipeline(cluster, home, "status", "--run", "whole", "--json"))
    assert [row["state"] for row in found["stages"]] == ["sealed"] * 6
    assert all(row["job"].endswith(" COMPLETED") for row in found["stages"])
    assert "COMPLETED" in pipeline(cluster, home, "status", "--run", "whole").splitlines()[1]


def test_a_stage_that_fails_cancels_what_waits_for_it(cluster: Cluster, home: Path) -> None:
    jobs = submit(cluster, home, "wrong", "--source", "reviews.csv", "--set", "prepare_corpus.text_column=nothing")
    deadline = time.monotonic() + 120
    while (states := [cluster.state(job) for job in jobs]) != ["FAILED", *["CANCELLED"] * 5]:
        assert time.monotonic() < deadline, states
        time.sleep(0.5)
    assert "FAILED" in pipeline(cluster, home, "status", "--run", "wrong")


def test_seeds_go_through_as_arrays(cluster: Cluster, home: Path) -> None:
    given = [f"inputs.{slot}=data/whole/{slot}" for slot in ("corpus", "ids")]
    more = [word for setting in given for word in ("--set", setting)]
    jobs = submit(cluster, home, "many", "--from", "finetune_lm", "--until", "finetune_lm", "--seeds", "42,7", *more)
    wait(cluster, home, "many", [f"{job}_{index}" for job in jobs for index in (0, 1)])
    same, other = ((home / f"models/many-seed{seed}/lm-fwd/encoder.safetensors").read_bytes() for seed in (42, 7))
    assert same == (home / "models/whole/lm-fwd/encoder.safetensors").read_bytes() != other


DEAF = """
import os, pathlib, signal
if os.environ.get("SLURM_PROCID") and not pathlib.Path("warned").exists():
    pathlib.Path("warned").touch()
    os.kill(os.getpid(), signal.{name})
"""
"""Ends the first stage that starts by a signal, as one does that comes before the stage can hear it."""


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_a_signal_while_a_stage_starts_costs_nothing(cluster: Cluster, home: Path, name: str) -> None:
    other = home / name
    (other / "deaf").mkdir(parents=True)
    write_reviews(other / "reviews.csv")
    (other / "deaf/sitecustomize.py").write_text(DEAF.format(name=name), encoding="utf-8")
    setup = [f"export PYTHONPATH={other / 'deaf'}:$PYTHONPATH PATH={Path(sys.executable).parent}:$PATH"]
    jobs = submit(cluster, other, "early", "--source", "reviews.csv", "--until", "prepare_corpus",
                  "--set", f"slurm.setup={setup}")
    for _ in watched_and_freed(cluster, other, "early", jobs):
        pass
    assert (other / "warned").exists()
    assert (other / "data/early/corpus/manifest.json").exists()


def test_processes_of_one_job_train_together_and_go_on_after_a_warning(cluster: Cluster, home: Path) -> None:
    given = [f"inputs.{slot}=data/whole/{slot}" for slot in ("corpus", "ids")]
    more = [word for setting in (*given, "slurm.jobs.gpu.processes=2") for word in ("--set", setting)]
    for run in ("pair", "pair-warned"):
        jobs = submit(cluster, home, run, "--from", "finetune_lm", "--until", "finetune_lm", *more)
        log = home / f"data/{run}/slurm/logs/01-finetune_lm.log"
        warned = run == "pair"
        for _ in watched_and_freed(cluster, home, run, jobs):
            if not warned and log.exists() and "finetune_lm a 1/6: epoch done" in log.read_text(errors="replace"):
                disturb(cluster, jobs[0], "warn")
                warned = True
        assert sealed(home, run, "finetune_lm")
        assert ("was stopped by SIGUSR1" in log.read_text(errors="replace")) == (run == "pair-warned")
    for name in ("encoder.safetensors", "decoder.safetensors"):
        one, other = (home / f"models/{run}/lm-fwd" / name for run in ("pair", "pair-warned"))
        assert one.read_bytes() == other.read_bytes()


def disturbed_round(cluster: Cluster, home: Path, run: str, rng: random.Random) -> int:
    """Training and evaluation as jobs that are disturbed at random; how often that was."""
    given = [f"inputs.{slot}=data/whole/{slot}" for slot in ("corpus", "ids")]
    more = [word for setting in given for word in ("--set", setting)]
    jobs = submit(cluster, home, run, "--from", "finetune_lm", *more)
    stages = ("finetune_lm", "train_classifier", "evaluate_classifier")
    disturbances, next_at = 0, time.monotonic() + rng.uniform(1, 8)
    for states in watched_and_freed(cluster, home, run, jobs):
        for i in range(1, len(jobs)):
            if states[i] == "RUNNING":
                assert sealed(home, run, stages[i - 1]), f"{run}: {stages[i]} began too early"
        running = [job for job, state in zip(jobs, states, strict=True) if state == "RUNNING"]
        if running and disturbances < 3 and time.monotonic() > next_at:
            disturb(cluster, running[0], rng.choice(DISTURBANCES))
            disturbances, next_at = disturbances + 1, time.monotonic() + rng.uniform(3, 10)
    return disturbances


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_disturbed_jobs_end_with_the_undisturbed_model(cluster: Cluster, home: Path, rounds: int) -> None:
    rng, disturbances = random.Random(int(os.environ.get("SLURM_TEST_SEED", "1"))), 0
    for i in range(rounds):
        run = f"round{rounds}-{i}"
        disturbances += disturbed_round(cluster, home, run, rng)
        assert contents(home, run) == contents(home, "whole")
        log = (home / f"data/{run}/slurm/logs/02-train_classifier.log").read_text(errors="replace")
        assert "needs" not in log  # it was not even tried before its language model was there
    print(f"{rounds} of {rounds} rounds bit-equal, {disturbances} disturbances")
    assert disturbances >= rounds
