"""What a command refuses before it begins, and before its arguments are remembered: told from manifests alone."""

import itertools
from collections.abc import Iterator, Sequence

from pipeline import making
from pipeline.artifact import read_manifest
from pipeline.errors import InputError
from pipeline.runs import Plan, needed, needs_force
from pipeline.stage import PREPARE, STAGES, Run, Stage, find_input
from pipeline.standing import StageStatus


def can_begin(plan: Plan, stages: Sequence[Stage], *, force: bool) -> bool:
    """False if the first of `stages` with work to do would stop, because its output was made with other settings.

    Raises LockedError if another process makes that output, StorageError if none can be made there.
    """
    for run, wanted in plan.steps(stages):
        for found in plan.status(run):
            if found.stage not in wanted or (found.state == "sealed" and not force):
                continue
            if needs_force(found) and not force:
                return False
            if not found.given:
                with making.held(found.path, found.stage.name):
                    return True
    return True


def check_shared(plan: Plan, run: Run, stages: Sequence[Stage]) -> None:
    """InputError if one of `stages` of `run` reads what the shared run has not made yet."""
    reading = [stage for stage in stages if run.given(stage.writes) is None]
    for stage, maker in itertools.product(reading, plan.shared_by(run)):
        assert plan.shared is not None
        path = plan.shared.path(maker.writes)
        if maker.writes in run.inputs_of(stage) and read_manifest(path) is None:
            raise InputError(
                f"{stage.name} needs {path}, which is not there or not sealed.",
                f"Make it first: {plan.shared.command(*_makes(maker))}",
            )


def _makes(stage: Stage) -> tuple[str, ...]:
    """The command that makes its output and all before it."""
    return (stage.name,) if stage is PREPARE else ("run", "--until", stage.name)


def check_line(plan: Plan, stages: Sequence[Stage]) -> None:
    """InputError if what `stages` read, and do not make, was made with other settings than those that were asked for.

    So also if [inputs] name something that is not there or of another kind.
    """
    for run, wanted in plan.steps(stages):
        for stage in wanted:
            for slot in run.inputs_of(stage):
                if run.given(slot) is not None and slot not in {maker.writes for maker in plan.shared_by(run)}:
                    find_input(run, stage, slot)
        for maker, found in _read_not_made(plan, run, wanted, stages):
            if found.manifest and found.fingerprint and found.manifest.fingerprint != found.fingerprint:
                raise InputError(
                    f"{wanted[0].name} would read {found.path}, which does not fit: {found.why}.",
                    f"Make it anew first: {maker.command('run', '--until', found.stage.name, '--force')}",
                )


def _read_not_made(
    plan: Plan, run: Run, wanted: Sequence[Stage], stages: Sequence[Stage]
) -> Iterator[tuple[Run, StageStatus]]:
    """What the stages `wanted` of `run` are made of and none of `stages` makes, each with the run that makes it."""
    if run is plan.ensemble:
        members = [one for one in plan.runs if plan.variant_of(one) in run.members]
        yield from ((one, plan.status(one)[-1]) for one in members if STAGES[-1] not in stages)
        return
    if plan.shared is not None and run is not plan.shared:
        made, shared = plan.made_once(STAGES), plan.shared_by(run)
        for found in plan.status(plan.shared):
            if found.stage in made and found.stage in shared and found.stage not in stages:
                yield plan.shared, found
    before = run.stages[: run.stages.index(wanted[0])]
    if before:  # else the source, which may be large, would be hashed once more
        read = needed(run, (*before, *wanted))
        yield from ((run, found) for found in plan.status(run) if found.stage in before and found.stage in read)
