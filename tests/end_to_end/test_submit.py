"""The `submit` command: what it writes, what it refuses, and what it says if Slurm refuses."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import call, manifest

SLURM = """
[slurm]
setup = ["module load cuda", "source .venv/bin/activate"]
warn_s = 300

[slurm.jobs.cpu]
cpus = 16
memory = "32G"
time = "2:00:00"

[slurm.jobs.gpu]
partition = "gpu"
gpus = 1
time = "12:00:00"

[slurm.jobs.finetune_lm]
time = "2-0"
"""
"""As in docs/cluster.md."""


def asked_for(folder: Path, job: str) -> set[str]:
    """The options of sbatch in the file of a job."""
    lines = (folder / f"{job}.sh").read_text(encoding="utf-8").splitlines()
    return {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}


def test_a_job_of_a_stage_asks_for_what_its_kind_does_whatever_is_overridden(tmp_path: Path) -> None:
    recipe = tmp_path / "cl.toml"
    recipe.write_text(SLURM, encoding="utf-8")
    given = ("submit", "--recipe", str(recipe), "--source", "x.csv", "--dry-run", "--home", str(tmp_path))
    for more in ((), ("--offline",), ("--set", "run.seed=7"), ("--seeds", "1,2")):
        call(*given, *more)
        asked = asked_for(tmp_path / "data/cl/slurm", "04-finetune_lm")
        assert asked >= {"--partition=gpu", "--gres=gpu:1", "--time=2-0"}, more


def test_files_of_an_earlier_submit_are_gone_and_those_of_others_are_not(tmp_path: Path) -> None:
    given = ("submit", "--recipe", "smoke", "--source", "x.csv", "--dry-run", "--home", str(tmp_path))
    call(*given, "--set", "slurm.shards=2")
    folder = tmp_path / "data/smoke/slurm"
    (folder / "05-finetune_lm-longer.sh").touch()
    call(*given, "--from", "finetune_lm", "--until", "train_classifier")
    assert sorted(path.name for path in folder.glob("*.sh")) == [
        "01-finetune_lm.sh", "02-train_classifier.sh", "05-finetune_lm-longer.sh", "chain.sh",
    ]


SBATCH = """#!/bin/bash
cd "$(dirname "$0")"
n=$(cat count 2>/dev/null || echo 100)
[ "$n" -lt "$(cat limit)" ] || { cat refusal >&2; exit 1; }
echo $((n + 1)) > count
echo "$n"
"""
"""Takes jobs up to a number and refuses the next."""
SQUEUE = """#!/bin/bash
cat "$(dirname "$0")/listed"
"""
REFUSAL = "sbatch: error: invalid partition: gpu\nsbatch: error: Batch job submission failed\n"


class Slurm:
    """Programs of Slurm's names, first in PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(0o755)
        self.set()

    def set(self, limit: int = 1000, refusal: str = REFUSAL, listed: str = "") -> None:
        """Take jobs below the number `limit`, then fail with `refusal`; `listed` is the queue."""
        for name, value in (("limit", limit), ("refusal", refusal), ("listed", listed)):
            (self.folder / name).write_text(str(value), encoding="utf-8")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """Slurm's programs, which take every job."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return Slurm(tmp_path / "bin")


GIVEN = ("submit", "--recipe", "smoke", "--source", "x.csv", "--home")


def ids(home: Path) -> list[str]:
    """Of the jobs that are written down."""
    return [row["id"] for row in json.loads((home / "data/smoke/slurm/jobs.json").read_text(encoding="utf-8"))]


def test_a_refusal_midway_tells_what_was_handed_in(tmp_path: Path, slurm: Slurm) -> None:
    slurm.set(limit=103)
    refused = call(*GIVEN, str(tmp_path), exit_code=3)
    assert refused.stderr == (
        "error: sbatch refused: sbatch: error: invalid partition: gpu; sbatch: error: Batch job submission failed. "
        "Already handed in: 100, 101, 102. Correct [slurm] in the recipe. "
        "Before you submit again: scancel 100 101 102\n"
    )
    assert ids(tmp_path) == ["100", "101", "102"]
    slurm.set(listed="100 RUNNING None\n102 PENDING Dependency\n")
    call(*GIVEN, str(tmp_path), "--until", "tokenize_corpus")
    assert ids(tmp_path) == ["100", "102", "103", "104"]


def test_a_request_that_slurm_does_not_take_is_not_remembered(tmp_path: Path, slurm: Slurm) -> None:
    slurm.set(limit=100)
    refused = call(*GIVEN, str(tmp_path), exit_code=3)
    assert "Already handed in" not in refused.stderr
    assert not (tmp_path / "data/smoke/run.json").exists()
    slurm.set(limit=101)
    call(*GIVEN, str(tmp_path), exit_code=3)
    assert (tmp_path / "data/smoke/run.json").exists()


def test_a_slurm_that_cannot_be_reached_is_told_in_one_line(tmp_path: Path, slurm: Slurm) -> None:
    slurm.set(limit=100, refusal="sbatch: error: fetch_config: DNS SRV lookup failed\n"
              "sbatch: fatal: Could not establish a configuration source\n")
    refused = call(*GIVEN, str(tmp_path), exit_code=3)
    assert refused.stderr == (
        "error: sbatch cannot reach Slurm: fetch_config: DNS SRV lookup failed. "
        "Give the command again when squeue answers here.\n"
    )


def refused_by(home: Path, arguments: list[str], *more: str) -> str:
    """What `submit` says to a request that `run` would refuse; it writes and hands in nothing."""
    remembered = (home / "data/smoke/run.json").read_bytes()
    refused = call("submit", *arguments, "--home", str(home), *more, exit_code=3)
    assert (home / "data/smoke/run.json").read_bytes() == remembered
    assert not (home / "data/smoke/slurm").exists()
    assert refused.stdout == ""
    return str(refused.stderr)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_jobs_that_are_certain_to_be_refused_are_not_handed_in(
    finished: Path, arguments: list[str], slurm: Slurm, more: tuple[str, ...]
) -> None:
    said = refused_by(finished, arguments, "--set", "finetune_lm.bs=6", "--until", "train_classifier", *more)
    assert f"error: finetune_lm would not replace {finished}/models/smoke/lm-fwd: finetune_lm.bs was " in said
    assert " --set finetune_lm.bs=6 " in said
    assert said.endswith(" --until train_classifier --force (or choose a new --run).\n")
    assert "python -m pipeline submit --recipe smoke" in said
    said = refused_by(finished, arguments, "--set", "tokenize_corpus.vocab_size=300", "--from", "finetune_lm", *more)
    assert "finetune_lm would read" in said
    assert not (slurm.folder / "count").exists()


def test_jobs_that_would_go_through_are_handed_in(
    tmp_path: Path, finished: Path, arguments: list[str], slurm: Slurm
) -> None:
    home = tmp_path / "home"
    shutil.copytree(finished, home)
    shutil.rmtree(home / "models/smoke/lm-fwd")
    call("submit", *arguments, "--home", str(home))
    assert (slurm.folder / "count").read_text(encoding="utf-8") == "106\n"


def test_with_force_jobs_replace_what_was_made_otherwise_and_once_only(
    tmp_path: Path, finished: Path, arguments: list[str]
) -> None:
    home = tmp_path / "home"
    shutil.copytree(finished, home)
    call("submit", *arguments, "--home", str(home), "--set", "finetune_lm.bs=6", "--set", "slurm.shards=2",
         "--until", "finetune_lm", "--force", "--dry-run")
    folder = home / "data/smoke/slurm"
    commands = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("[0-9]*.sh")}
    assert "--force" not in commands["02-tokenize_corpus-shards"].split("Written by", 1)[1].split("\n", 1)[1]
    for said in ("finetune_lm: sealed in", "finetune_lm: nothing changed"):  # as where a job comes again
        done = subprocess.run(["bash", str(folder / "chain.sh")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout
    assert manifest(home / "models/smoke/lm-fwd")["settings"]["finetune_lm"]["bs"] == 6
