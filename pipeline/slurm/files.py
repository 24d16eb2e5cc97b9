"""The files of batch jobs: readable, kept with the run, and of use without this program."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.plain_templates import rendered
from pipeline.progress import printable
from pipeline.settings import JobSettings, SlurmSettings
from pipeline.slurm.jobs import SHARDS, Job
from pipeline.stage import ENSEMBLE, STAGES, Run
from pipeline.storage import write_durably

FOLDER = "slurm"
"""Below data/RUN."""
CHAIN = "chain.sh"
LOGS = "logs"
_TEMPLATES = ("pipeline.slurm", "templates")


def write_files(folder: Path, jobs: Sequence[Job], command: str) -> None:
    """Write one file per job, and one that runs them all where there is no Slurm; those of earlier jobs go."""
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    written = {f"{stage.name}{ending}.sh" for stage in (*STAGES, ENSEMBLE) for ending in ("", SHARDS)}
    for path in folder.glob("[0-9][0-9]-*.sh"):
        if path.name[len("00-"):] in written:
            path.unlink()
    for job in jobs:
        write_durably(file_of(folder, job), job_file(folder, job, command))
    write_durably(folder / CHAIN, rendered(
        *_TEMPLATES, "chain.sh", command=_on_one_line(command),
        jobs=[{"file": file_of(folder, job).name, "elements": len(job.elements)} for job in jobs],
        restarts=_slurm(jobs[0]).restarts,
    ))


def file_of(folder: Path, job: Job) -> Path:
    """Where the file of `job` lies."""
    return folder / f"{job.name}.sh"


def log_of(folder: Path, job: Job) -> Path:
    """What `job` writes; %a stands for the number of an array's element."""
    return folder / LOGS / f"{job.name}{'-%a' if len(job.elements) > 1 else ''}.log"


def job_file(folder: Path, job: Job, command: str) -> str:
    """Text of the file of `job`; what goes into a comment stays on its line."""
    slurm, several = _slurm(job), len(job.runs) > 1
    names = ", ".join(run.name for run in job.runs)
    return rendered(
        *_TEMPLATES, "job.sh", title=f"{job.stage.name} of the run{'s' if several else ''} {names}",
        command=_on_one_line(command),
        file=shlex.quote(str(file_of(folder, job))), job_name=f"{job.runs[0].name}.{job.stage.name}",
        log=log_of(folder.resolve(), job), options=[*_options(job.settings), *_array(job)], warn_s=slurm.warn_s,
        folder=shlex.quote(str(Path.cwd())), setup=slurm.setup, restarts=slurm.restarts, nodes=job.settings.nodes,
        processes=job.settings.processes,
        elements=[_stage_command(run, extra, job, slurm) for run, extra in job.elements],
    )


def _on_one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n")


def _slurm(job: Job) -> SlurmSettings:
    return job.runs[0].recipe.slurm


def _stage_command(run: Run, extra: Sequence[str], job: Job, slurm: SlurmSettings) -> str:
    words = shlex.split(run.command(job.stage.name, *extra))
    return shlex.join(["python" if slurm.setup else sys.executable, *words[1:]])


def _options(settings: JobSettings) -> Iterator[str]:
    names = {"partition": "partition", "account": "account", "time": "time", "cpus": "cpus-per-task", "memory": "mem"}
    for key, option in names.items():
        value = getattr(settings, key)
        if value is not None:
            yield f"--{option}={value}"
    if settings.gpus is not None:
        yield f"--gres=gpu:{settings.gpus}"
    yield from settings.options


def _array(job: Job) -> list[str]:
    return [f"--array=0-{len(job.elements) - 1}"] if len(job.elements) > 1 else []

