"""Talking to Slurm with its own programs: handing in jobs, and asking where they stand."""

import json
import subprocess
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, PipelineError, UsageError
from pipeline.provenance import now
from pipeline.slurm.files import FOLDER, file_of, log_of
from pipeline.slurm.jobs import Job
from pipeline.storage import write_durably

RECORD = "jobs.json"
UNLISTED, UNKNOWN = "not in the queue", "state unknown here"
"""Of a job that Slurm does not list any more, and where Slurm cannot be asked."""
_TIMEOUT_S = 60
_UNREACHABLE = (
    "Could not establish a configuration source", "Unable to contact slurm controller", "Socket timed out",
    "Zero Bytes were transmitted", "Communication connection failure",
)
"""What Slurm's programs say if they cannot talk to it."""


def submit(folder: Path, jobs: Sequence[Job], accepted: Callable[[], None]) -> dict[str, str]:
    """Hand the jobs to Slurm, each after those it waits for; their ids by the name of the job.

    The ids are written down after each job, so that none is lost; `accepted` is called once, after the first. Raises
    UsageError if Slurm is not here, InputError for what it refuses; both tell what was handed in before.
    """
    ids: dict[str, str] = {}
    rows = _still_listed(folder)
    try:
        for job in jobs:
            waits = [f"--dependency={job.dependency}:{':'.join(ids[other.name] for other in job.after)}",
                     "--kill-on-invalid-dep=yes"] if job.after else []
            ids[job.name] = _call("sbatch", "--parsable", *waits, str(file_of(folder, job))).split(";")[0].strip()
            rows.append({
                "id": ids[job.name], "stage": job.stage.name, "runs": [run.name for run, _ in job.elements],
                "file": file_of(folder, job).name, "log": str(log_of(folder, job).relative_to(folder)),
                "submitted": now(),
            })
            write_durably(folder / RECORD, json.dumps(rows, indent=2) + "\n")
            if len(ids) == 1:
                accepted()
    except PipelineError as error:
        if ids:
            error.what += f" Already handed in: {', '.join(ids.values())}."
            error.mend = f"{error.mend} Before you submit again: scancel {' '.join(ids.values())}".strip()
        raise
    return ids


def _still_listed(folder: Path) -> list[dict[str, Any]]:
    """The rows of earlier jobs that Slurm lists; all of them where it cannot be asked."""
    rows = recorded(folder)
    try:
        listed = {job.partition("_")[0] for job in states([row["id"] for row in rows])}
    except PipelineError:
        return rows
    return [row for row in rows if row["id"] in listed]


def recorded(folder: Path) -> list[dict[str, Any]]:
    """The jobs that were handed in from `folder`: the last ones, and earlier ones that were listed still."""
    try:
        rows: list[dict[str, Any]] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise InputError(f"{folder / RECORD} is damaged: {error}.", "Remove it; the jobs themselves go on.") from error
    return rows


def jobs_of_runs(home: Path, names: Collection[str]) -> dict[tuple[str, str], str]:
    """`ID STATE` of the job that was last handed in for each (run, stage) of the runs `names`; none where none was."""
    jobs: dict[tuple[str, str], tuple[str, str]] = {}  # when it was handed in, and its id
    for path in home.glob(f"data/*/{FOLDER}/{RECORD}"):
        for row in recorded(path.parent):
            for index, run in enumerate(row["runs"]):
                if run not in names:
                    continue
                job = f"{row['id']}_{index}" if len(row["runs"]) > 1 else row["id"]
                key = (run, row["stage"])
                if row["submitted"] >= jobs.get(key, ("", ""))[0]:  # handed in together, the later in the chain
                    jobs[key] = (row["submitted"], job)
    try:
        found, otherwise = states(sorted({job.partition("_")[0] for _, job in jobs.values()})), UNLISTED
    except PipelineError:
        found, otherwise = {}, UNKNOWN
    return {key: f"{job} {found.get(job, otherwise)}" for key, (_, job) in jobs.items()}


def states(ids: Sequence[str]) -> dict[str, str]:
    """Slurm's state of each job, such as PENDING or RUNNING, by id, or ID_INDEX for an array's element.

    A job that Slurm does not list any more is left out. Raises UsageError if Slurm is not here.
    """
    if not ids:
        return {}
    listed = _call("squeue", "--noheader", "--states=all", "--array", "--format=%i %T %r", f"--jobs={','.join(ids)}",
                   fine_if="Invalid job id")
    found = {}
    for line in listed.splitlines():
        job, state, reason = line.split(maxsplit=2)
        found[job] = state if reason == "None" or state != "PENDING" else f"{state} ({reason})"
    return found


def _call(*words: str, fine_if: str | None = None) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except FileNotFoundError:
        raise UsageError(
            f"There is no {words[0]} on this machine.",
            "Submit where Slurm is, or run the same chain without it: the file chain.sh of --dry-run.",
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{words[0]} did not answer within {_TIMEOUT_S} s.", "Give the command again later.") from None
    if done.returncode and not (fine_if and fine_if in done.stderr):
        lines = done.stderr.strip().splitlines()
        if any(sign in done.stderr for sign in _UNREACHABLE):
            reason = lines[0].removeprefix(f"{words[0]}: ").removeprefix("error: ").rstrip(".")
            raise InputError(
                f"{words[0]} cannot reach Slurm: {reason}.", "Give the command again when squeue answers here."
            )
        raise InputError(f"{words[0]} refused: {'; '.join(lines)}.", "Correct [slurm] in the recipe.")
    return done.stdout
