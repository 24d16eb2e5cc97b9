"""The `submit` command: what it writes, what it refuses, and what it says if Slurm refuses."""

from pathlib import Path

from command_line import call

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
