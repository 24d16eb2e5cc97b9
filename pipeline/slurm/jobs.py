"""Which batch jobs a request needs: one per stage, an array where several runs go through it, in their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UsageError
from pipeline.parts import Share
from pipeline.runs import Plan
from pipeline.settings import JOB_KINDS, JobSettings, SlurmSettings
from pipeline.stage import ENSEMBLE, PREPARE, STAGES, TOKENIZE, Run, Stage

SHARDS = "-shards"
"""Ends the name of a job that makes a stage's shares."""


@dataclass(frozen=True)
class Job:
    """One stage of one run, or of several as the elements of a job array."""

    number: int
    stage: Stage
    runs: tuple[Run, ...]
    settings: JobSettings
    after: tuple["Job", ...]
    """What has to be sealed before it."""
    shards: int = 1
    """Into how many elements the work of each run is cut."""
    force: bool = False
    """It replaces what was made with other settings. A job that comes again goes on all the same."""

    @property
    def name(self) -> str:
        """`02-tokenize_corpus`: of its file and its log."""
        return f"{self.number:02d}-{self.stage.name}{SHARDS if self.shards > 1 else ''}"

    @property
    def elements(self) -> list[tuple[Run, tuple[str, ...]]]:
        """Of the array, or the one there is: a run, and what its command has beside the run's own arguments."""
        if self.shards == 1:
            return [(run, ("--force",) if self.force else ()) for run in self.runs]
        shares = [Share(number, self.shards) for number in range(1, self.shards + 1)]
        return [(run, ("--shard", str(share))) for run in self.runs for share in shares]

    @property
    def dependency(self) -> Literal["afterok", "aftercorr"]:
        """aftercorr: each element of an array waits for the same element of the one before."""
        def names(job: Job) -> list[str]:
            return [run.name for run, _ in job.elements]

        alike = len(self.elements) > 1 and [names(job) for job in self.after] == [names(self)]
        return "aftercorr" if alike else "afterok"


def plan_jobs(plans: Sequence[Plan], stages: Sequence[Stage], *, force: bool = False) -> list[Job]:
    """The jobs of `plans`, which differ in their seed alone, for `stages`; each comes after those it waits for.

    Raises UsageError if the recipe names a job for a stage that there is not, or gives one less time than its warning.
    """
    settings = plans[0].runs[0].recipe.slurm
    _check_names(settings)
    shares = {PREPARE: settings.prepare_shards, TOKENIZE: settings.shards}
    steps = [step for plan in plans for step in plan.steps(stages)]
    shared = {plan.shared.name for plan in plans if plan.shared is not None}
    found: list[Job] = []
    before: tuple[Job, ...] = ()
    for stage in (*STAGES, ENSEMBLE):
        takers = [run for run, wanted in steps if stage in wanted]
        groups = [tuple(run for run in takers if (run.name in shared) == alone) for alone in (True, False)]
        for runs in filter(None, groups):
            asked = job_settings(settings, stage)
            _check_time(stage, asked, settings.warn_s)
            for shards in sorted({shares.get(stage, 1), 1}, reverse=True):
                job = Job(len(found) + 1, stage, runs, asked, before, shards, force)
                found.append(job)
                before = (job,)
    return found


def job_settings(settings: SlurmSettings, stage: Stage) -> JobSettings:
    """What a job of `stage` asks for: what its kind does, and over that what the stage does.

    Processes and nodes of a kind are for those of its stages that train; UsageError if another one asks for them.
    """
    kind = "gpu" if "precision" in stage.run_settings else "cpu"
    given = [settings.jobs[name].model_dump(exclude_unset=True) for name in (kind, stage.name) if name in settings.jobs]
    if not stage.trains:
        own = settings.jobs.get(stage.name, JobSettings())
        if own.processes * own.nodes > 1:
            raise UsageError(
                f"slurm.jobs.{stage.name} asks for {own.processes * own.nodes} processes; the stage trains nothing.",
                "Leave out processes and nodes there.",
            )
        for values in given:
            values.pop("processes", None)
            values.pop("nodes", None)
    return JobSettings.model_validate({key: value for values in given for key, value in values.items()})


def seconds(time: str) -> int:
    """Of a time as sbatch reads it: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-HOURS[:MINUTES[:SECONDS]]."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if not dash:
        parts = [0, *parts] if len(parts) < 3 else parts
    hours, minutes, second = (*parts, 0, 0)[:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + second


def _check_time(stage: Stage, asked: JobSettings, warn_s: int) -> None:
    """A job that is warned as soon as it starts would be stopped again and again; to sbatch no time is no limit."""
    if asked.time is None or not 0 < seconds(asked.time) <= warn_s:
        return
    lower = max(10, seconds(asked.time) // 4)
    or_else = f", or lower slurm.warn_s: --set slurm.warn_s={lower}" if lower < seconds(asked.time) else ""
    raise UsageError(
        f"Jobs of {stage.name} have {seconds(asked.time)} seconds, and slurm.warn_s asks them to stop {warn_s} "
        "before the end.",
        f"Give them more time{or_else}.",
    )


def _check_names(settings: SlurmSettings) -> None:
    known = [*JOB_KINDS, *(stage.name for stage in (*STAGES, ENSEMBLE))]
    unknown = [name for name in settings.jobs if name not in known]
    if unknown:
        raise UsageError(f"slurm.jobs.{unknown[0]} is of no stage.", f"Name one of {', '.join(known)}.")
