"""The files of batch jobs: what they ask for, what they call, and that they run without Slurm too."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call, manifest, write_reviews

from pipeline.errors import UsageError
from pipeline.recipe import load_recipe
from pipeline.runs import Request, resolve
from pipeline.slurm.files import job_file
from pipeline.slurm.jobs import Job, job_settings, plan_jobs, seconds
from pipeline.slurm.queue import states
from pipeline.stage import ENSEMBLE, STAGE_NAMES, STAGES, Stage

GPU_STAGES = {"finetune_lm", "train_classifier", "evaluate_classifier"}


def jobs_of(recipe: str, *overrides: str) -> list[Job]:
    return plan_jobs([resolve(Request(recipe=recipe, overrides=overrides))], (*STAGES, ENSEMBLE))


def test_every_stage_is_a_job_after_the_one_before_it() -> None:
    jobs = jobs_of("imdb")
    assert [job.stage.name for job in jobs] == list(STAGE_NAMES)
    assert [job.name[:3] for job in jobs] == [f"{i:02d}-" for i in range(1, 7)]
    assert [[other.name for other in job.after] for job in jobs] == [[], *[[job.name] for job in jobs[:-1]]]
    assert {job.dependency for job in jobs} == {"afterok"}


def test_variants_are_elements_of_arrays_after_what_they_share() -> None:
    jobs = jobs_of("imdb-ensemble")
    once, names = ["imdb-ensemble"], ["imdb-ensemble-fwd", "imdb-ensemble-bwd"]
    assert [[run.name for run in job.runs] for job in jobs] == [*[once] * 3, *[names] * 3, once]
    assert [job.dependency for job in jobs] == [*["afterok"] * 4, *["aftercorr"] * 2, "afterok"]
    assert jobs[-1].stage is ENSEMBLE


def test_shards_are_an_array_before_the_stage_that_puts_them_together() -> None:
    jobs = jobs_of("imdb", "slurm.shards=3")
    assert [job.name for job in jobs[1:3]] == ["02-tokenize_corpus-shards", "03-tokenize_corpus"]
    assert [extra for _, extra in jobs[1].elements] == [("--shard", f"{i}/3") for i in (1, 2, 3)]
    assert [jobs[2].after, jobs[2].dependency] == [(jobs[1],), "afterok"]
    jobs = jobs_of("imdb", "slurm.prepare_shards=2")
    assert [job.name for job in jobs[:3]] == ["01-prepare_corpus-shards", "02-prepare_corpus", "03-tokenize_corpus"]
    assert [extra for _, extra in jobs[0].elements] == [("--shard", "1/2"), ("--shard", "2/2")]
    both = jobs_of("imdb-5000", "slurm.shards=2")
    assert [(run.name.removeprefix("imdb-5000"), extra[1]) for job in both[1:5:2] for run, extra in job.elements] == [
        ("", "1/2"), ("", "2/2"),  # of words, which two variants share
        ("-subword-fwd", "1/2"), ("-subword-fwd", "2/2"), ("-subword-bwd", "1/2"), ("-subword-bwd", "2/2"),
    ]
    assert [job.dependency for job in both[1:6]] == ["afterok"] * 5


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_asks_for_what_its_kind_does_and_then_its_own(stage: Stage) -> None:
    recipe = load_recipe("imdb", [
        "slurm.jobs.cpu.cpus=8", "slurm.jobs.cpu.time=1:00:00", "slurm.jobs.gpu.gpus=1", "slurm.jobs.gpu.time=2-0",
    ])
    settings = recipe.slurm.model_copy(update={
        "jobs": {**recipe.slurm.jobs, "finetune_lm": type(recipe.slurm.jobs["gpu"])(time="3-0")}
    })
    found = job_settings(settings, stage)
    gpu = stage.name in GPU_STAGES
    assert (found.gpus, found.cpus) == ((1, None) if gpu else (None, 8))
    long = stage.name == "finetune_lm"
    assert found.time == ("3-0" if long else "2-0" if gpu else "1:00:00")


@pytest.mark.parametrize(("time", "expected"), [
    ("90", 5400), ("1:30", 90), ("2:00:01", 7201), ("1-2", 93600), ("1-2:30", 95400), ("1-2:30:05", 95405),
])
def test_times_are_read_as_sbatch_does(time: str, expected: int) -> None:
    assert seconds(time) == expected


def test_a_folder_with_a_space_is_one_word_to_sbatch(tmp_path: Path) -> None:
    (job, *_) = jobs_of("imdb")
    text = job_file(tmp_path / "my home", job, "python -m pipeline submit")
    assert f'\n#SBATCH --output="{tmp_path}/my home/logs/{job.name}.log"\n' in text


def test_a_job_that_would_be_stopped_at_once_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Jobs of finetune_lm have 240 seconds, .*asks them to stop 300 before"):
        jobs_of("imdb", "slurm.jobs.gpu.time=4")
    assert jobs_of("imdb", "slurm.jobs.gpu.time=4", "slurm.warn_s=60")


def test_a_time_of_zero_is_no_limit_as_it_is_to_sbatch() -> None:
    assert [job.settings.time for job in jobs_of("imdb", "slurm.jobs.gpu.time=0")[3:5]] == ["0", "0"]
    assert jobs_of("imdb", "slurm.jobs.gpu.time=0:00")


def test_no_warning_fits_into_a_few_seconds() -> None:
    with pytest.raises(UsageError, match="asks them to stop 300 before the end") as caught:
        jobs_of("imdb", "slurm.jobs.gpu.time=0:10")
    assert caught.value.mend == "Give them more time."


def test_a_job_of_no_stage_is_refused() -> None:
    plan = resolve(Request(recipe="imdb"))
    slurm = plan.runs[0].recipe.slurm
    wrong = slurm.model_copy(update={"jobs": {**slurm.jobs, "finetune": slurm.jobs["gpu"]}})
    recipe = plan.runs[0].recipe.model_copy(update={"slurm": wrong})
    run = type(plan.runs[0])("r", recipe, Path())
    with pytest.raises(UsageError, match=r"slurm\.jobs\.finetune is of no stage"):
        plan_jobs([type(plan)("r", plan.request, (run,))], STAGES)


def test_a_file_has_the_options_and_the_setup_and_is_bash(tmp_path: Path) -> None:
    job = jobs_of(
        "imdb-ensemble", "slurm.jobs.gpu.partition=gpu", "slurm.jobs.gpu.memory=64G", "slurm.jobs.gpu.gpus=2",
        "slurm.jobs.gpu.options=['--exclusive']", "slurm.setup=['module load cuda']", "slurm.warn_s=120",
    )[3]
    text = job_file(tmp_path, job, "python -m pipeline submit --set 'a=\nb'")
    options = {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")}
    assert options >= {
        "--partition=gpu", "--mem=64G", "--gres=gpu:2", "--exclusive", "--requeue --signal=USR1@120", "--array=0-1",
        "--open-mode=append",
    }
    assert "\nmodule load cuda\n" in text
    assert "stage=(python -m pipeline finetune_lm --recipe imdb-ensemble --variant bwd" in text
    assert all(line.startswith("#") for line in text.partition("\ncd ")[0].splitlines())
    (tmp_path / "job.sh").write_text(text, encoding="utf-8")
    subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], check=True)
    refused = subprocess.run(["bash", str(tmp_path / "job.sh"), "2"], capture_output=True, text=True, check=False,
                             cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    assert (refused.returncode, refused.stderr) != (0, "")


RANK = """
import os, signal, sys, time
print("rank", *(os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")), flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
time.sleep(100 if len(sys.argv) > 1 else 0)
sys.exit(5 if os.environ["RANK"] == "0" else 1)
"""


def test_processes_of_a_job_are_ranks(tmp_path: Path) -> None:
    jobs = jobs_of("imdb", "slurm.jobs.gpu.processes=2", "slurm.jobs.gpu.nodes=3")
    text = job_file(tmp_path, jobs[3], "")
    assert "#SBATCH --nodes=3 --ntasks-per-node=2\n" in text
    assert "RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS" in text
    assert "--nodes=1 --ntasks=1\n" in job_file(tmp_path, jobs[5], "")  # which trains nothing
    wrong = load_recipe("imdb", ["slurm.jobs={tokenize_corpus={processes=2}}"]).slurm
    with pytest.raises(UsageError, match=r"slurm\.jobs\.tokenize_corpus asks for 2 processes"):
        job_settings(wrong, STAGES[1])


@pytest.mark.parametrize("stopped", [False, True])
def test_without_slurm_the_processes_of_a_job_end_with_the_code_of_rank_0(tmp_path: Path, stopped: bool) -> None:
    (tmp_path / "rank.py").write_text(RANK, encoding="utf-8")
    text = job_file(tmp_path, jobs_of("imdb", "slurm.jobs.gpu.processes=2")[3], "")
    stage = next(line for line in text.splitlines() if line.startswith("stage=("))
    words = f"stage=({sys.executable} {tmp_path / 'rank.py'}{' wait' if stopped else ''})"
    (tmp_path / "job.sh").write_text(text.replace(stage, words), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(["bash", str(tmp_path / "job.sh")], stdout=log, env=environment)
        while len((tmp_path / "log").read_text().splitlines()) < 2:
            assert job.poll() in (None, 5)
        if stopped:
            job.send_signal(signal.SIGUSR1)
        assert job.wait() == (75 if stopped else 5)
    said = sorted((tmp_path / "log").read_text().splitlines())
    assert said == ["rank 0 2 0 127.0.0.1", "rank 1 2 1 127.0.0.1"]


def test_without_slurm_the_chain_runs_all_stages_and_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "reviews.csv", n=120)
    call(
        "submit", "--recipe", "smoke", "--source", "reviews.csv", "--set", "prepare_corpus.split_column=split",
        "--set", "run.device=cpu", "--set", "tokenize_corpus.workers=1", "--dry-run", "--until", "finetune_lm",
    )
    folder = tmp_path / "data/smoke/slurm"
    assert sorted(path.name for path in folder.glob("*.sh")) == [
        "01-prepare_corpus.sh", "02-tokenize_corpus.sh", "03-numericalize_corpus.sh", "04-finetune_lm.sh", "chain.sh",
    ]
    stopping = (folder / "04-finetune_lm.sh").read_text(encoding="utf-8").replace(
        "stage=(", "test -e stopped || { touch stopped; exit 75; }\nstage=("
    )
    (folder / "04-finetune_lm.sh").write_text(stopping, encoding="utf-8")
    done = subprocess.run(["bash", str(folder / "chain.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "stopped").exists()
    assert manifest(tmp_path / "models/smoke/lm-fwd")["slot"] == "lm"
    assert "finetune_lm: sealed" in (folder / "logs/04-finetune_lm.log").read_text(encoding="utf-8")
    failed = (folder / "02-tokenize_corpus.sh").read_text(encoding="utf-8").replace("stage=(", "exit 4\nstage=(")
    (folder / "02-tokenize_corpus.sh").write_text(failed, encoding="utf-8")
    done = subprocess.run(["bash", str(folder / "chain.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "numericalize_corpus: nothing changed" not in done.stdout


def test_seeds_are_runs_of_their_own(tmp_path: Path) -> None:
    said = call("submit", "--recipe", "smoke", "--source", "x.csv", "--seeds", "1,2", "--dry-run", "--home",
                str(tmp_path)).stdout
    assert said.count(", 2 elements") == 6
    text = (tmp_path / "data/smoke/slurm/04-finetune_lm.sh").read_text(encoding="utf-8")
    for seed in (1, 2):
        assert f"--run smoke-seed{seed} --set run.seed={seed} " in text
        assert not (tmp_path / f"data/smoke-seed{seed}").exists()  # it was not handed in
    refused = call("submit", "--recipe", "smoke", "--seeds", "1,1", "--home", str(tmp_path), exit_code=2)
    assert "are no seeds" in refused.stderr


def test_without_slurm_the_command_says_what_to_do_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"There is no squeue on this machine\. .*chain\.sh"):
        states(["1"])


def test_a_login_node_fetches_and_a_compute_node_does_not(tmp_path: Path) -> None:
    at = ("--home", str(tmp_path))
    offline = call("run", "--recipe", "imdb", "--offline", "--until", "prepare_corpus", *at, exit_code=3)
    assert f"{tmp_path}/data/downloads/aclImdb_v1.tar.gz is not there" in offline.stderr
    assert "--download-only" in offline.stderr
    write_reviews(tmp_path / "reviews.csv", n=20)
    fetched = call(
        "prepare_corpus", "--recipe", "smoke", "--source", str(tmp_path / "reviews.csv"), "--download-only", *at
    )
    assert fetched.stdout.strip() == str(tmp_path / "reviews.csv")
    generated = call("prepare_corpus", "--recipe", "human-numbers", "--download-only", *at)
    assert "human-numbers is generated: nothing to fetch" in generated.stdout
    assert not (tmp_path / "data/smoke/corpus").exists()
    both = call("prepare_corpus", "--recipe", "imdb", "--download-only", "--offline", *at, exit_code=2)
    assert "exclude each other" in both.stderr
