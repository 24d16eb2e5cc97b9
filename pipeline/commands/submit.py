"""The `submit` command: its options, and what was handed in."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from pipeline import refusals, runs
from pipeline.commands.naming import names_a_run
from pipeline.errors import InputError, UsageError
from pipeline.options import ForceOption, OfflineOption
from pipeline.stage import ENSEMBLE, STAGE_NAMES, Stage, select


@names_a_run
def command(
    request: runs.Request,
    *,
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help=f"First stage: {', '.join(STAGE_NAMES)}.")
    ] = None,
    last: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Last stage.")] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="N,...", help="A run of each seed, called RUN-seedN; their stages "
                                 "are job arrays, as those of variants are.")
    ] = None,
    offline: OfflineOption = False,
    force: ForceOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the files, hand nothing in. chain.sh among them runs the same "
                           "stages without Slurm.")
    ] = False,
) -> None:
    """Make a batch job of every stage and hand them to Slurm, each after the ones it needs.

    The files, the job ids and the logs are kept in data/RUN/slurm; what jobs ask for is in [slurm] of the recipe.
    `status` shows the jobs beside the stages.
    """
    from pipeline.slurm import files, queue
    from pipeline.slurm.jobs import plan_jobs

    plan = runs.resolve(request.offline() if offline else request)
    plans = [plan] if seeds is None else [_with_seed(plan, seed) for seed in _numbers(seeds)]
    stages = select(first, last)
    wanted = stages if last else (*stages, ENSEMBLE)
    jobs = plan_jobs(plans, wanted, force=force)
    words = [
        word for option, value in (("--from", first), ("--until", last), ("--seeds", seeds)) if value
        for word in (option, value)
    ]
    for one in plans:
        refusals.check_line(one, wanted)
        if not force:
            _check_replaces_nothing(one, wanted, plan.command_line.command("submit", *words, "--force"))
    folder = request.home / "data" / plan.name / files.FOLDER
    command_line = plan.command_line.command("submit", *words, *(["--force"] if force else []))
    files.write_files(folder, jobs, command_line)
    ids = {} if dry_run else queue.submit(folder, jobs, lambda: _remember(plans))
    for job in jobs:
        elements = f", {len(job.elements)} elements" if len(job.elements) > 1 else ""
        print(f"{ids.get(job.name, 'not handed in')}  {files.file_of(folder, job)}{elements}")
    if dry_run:
        print(f"without Slurm: bash {folder / files.CHAIN}")


def _check_replaces_nothing(plan: runs.Plan, stages: Sequence[Stage], with_force: str) -> None:
    """InputError if a job is certain to be refused: its stage would replace what was made otherwise."""
    for run, wanted in plan.steps(stages):
        for found in plan.status(run):
            # No fingerprint: its inputs are not made yet, and may be what it was made of.
            certain = found.fingerprint is not None or found.manifest is None
            if found.stage in wanted and not found.given and runs.needs_force(found) and certain:
                raise InputError(
                    f"{found.stage.name} would not replace {found.path}: {found.why.rstrip('.')}.",
                    f"Replace it and what follows: {with_force} (or choose a new --run).",
                )


def _remember(plans: Sequence[runs.Plan]) -> None:
    for plan in plans:
        runs.remember(plan)


def _with_seed(plan: runs.Plan, seed: int) -> runs.Plan:
    overrides = tuple(o for o in plan.request.overrides if not o.startswith("run.seed="))
    request = replace(plan.request, run=f"{plan.name}-seed{seed}", overrides=(*overrides, f"run.seed={seed}"))
    return runs.resolve(request)


def _numbers(seeds: str) -> list[int]:
    try:
        found = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        found = []
    if not found or len(set(found)) < len(found) or min(found) < 0:
        raise UsageError(f"--seeds {seeds!r} are no seeds.", "Write numbers, each once: --seeds 1,2,3.")
    return found
