"""Which runs a command line means: their names, their variants, and the arguments remembered from last time.

A run without variants is one `Run`. A recipe with variants gives one run per variant, called <run>-<variant>; variants
with the corpus settings of the recipe itself share its corpus, whatever their seed: the run <run> prepares it once. So
with its tokens and its ids.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pipeline import protocol as protocols
from pipeline.errors import InputError, UsageError
from pipeline.protocol import SUFFIX, Protocol
from pipeline.recipe import DEFAULT_RECIPE, NAME, Recipe, check_run_name, load_recipe, override_value, shipped_recipes
from pipeline.remembered import ARGUMENTS_FILE, Remembered, last_of
from pipeline.stage import ENSEMBLE, PREPARE, STAGES, Run, Stage, member_slot
from pipeline.standing import StageStatus, status


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; None: not given."""

    recipe: str | None = None
    run: str | None = None
    overrides: tuple[str, ...] = ()
    source: str | None = None
    variant: str | None = None
    home: Path = Path()
    protocol: Protocol | None = None

    def offline(self) -> "Request":
        """The same request that fetches nothing."""
        return replace(self, overrides=(*self.overrides, f"{PREPARE.name}.offline=true"))

    @property
    def published(self) -> bool:
        """True for the published protocol, whose runs have a suffix of their own."""
        return self.protocol == "published"


@dataclass(frozen=True)
class Plan:
    """The runs that a request means."""

    name: str
    request: Request
    runs: tuple[Run, ...]
    """The run itself, or one run per variant that was asked for."""
    shared: Run | None = None
    """The run that prepares the corpus, and perhaps makes tokens and ids, for the variants which share them."""
    sharing: Mapping[str, tuple[Stage, ...]] = field(default_factory=dict)
    """By the name of each run that shares anything: the stages that the shared run goes through for it."""
    remembered: bool = False
    """True if the arguments come from an earlier command."""
    ensemble: Run | None = None
    """What averages the members among `runs`, or evaluations from anywhere."""

    def steps(self, stages: Sequence[Stage]) -> list[tuple[Run, tuple[Stage, ...]]]:
        """Each run and which of `stages` it has to go through, in order."""
        line = tuple(stage for stage in stages if stage is not ENSEMBLE)
        steps = [] if self.shared is None else [(self.shared, self.made_once(line))]
        for run in self.runs:
            steps.append((run, needed(run, tuple(stage for stage in line if stage not in self.shared_by(run)))))
        if self.ensemble is not None and ENSEMBLE in stages:
            steps.append((self.ensemble, (ENSEMBLE,)))
        return [(run, wanted) for run, wanted in steps if wanted]

    def shared_by(self, run: Run) -> tuple[Stage, ...]:
        """The stages that the shared run goes through for `run`."""
        return self.sharing.get(run.name, ())

    def made_once(self, stages: Sequence[Stage]) -> tuple[Stage, ...]:
        """Those of `stages` that the shared run has to go through, for whichever runs read what it makes."""
        assert self.shared is not None
        read = {stage for run in self.runs for stage in needed(run, stages) if stage in self.shared_by(run)}
        last = max((stages.index(stage) + 1 for stage in read), default=0)
        return needed(self.shared, stages[:last])

    def status(self, run: Run) -> list[StageStatus]:
        """Where every stage of one of the plan's runs stands, by what those before it in other runs should be."""
        if run is self.ensemble:
            ends = {self.variant_of(one): self.status(one)[-1].fingerprint for one in self.runs}
            return status(run, {member_slot(name): ends[name] for name in run.members if name in ends})
        if self.shared is None or run is self.shared:
            return status(run)
        shared = self.shared_by(run)
        return status(run, {one.stage.writes: one.fingerprint for one in status(self.shared) if one.stage in shared})

    def variant_of(self, run: Run) -> str:
        """Name of the variant that one of the plan's runs is."""
        return run.name.removeprefix(f"{self.name}-")

    def counterpart(self, run: Run) -> Run:
        """What one of the plan's runs is called under the other protocol."""
        name = _without_suffix(self.name) if self.request.published else self.name + SUFFIX
        return replace(run, name=name + run.name.removeprefix(self.name))

    @property
    def command_line(self) -> Run:
        """The run whose arguments stand for all runs of the plan."""
        return replace(self.runs[0], name=self.name, arguments=_arguments(self.request, _without_suffix(self.name)))


def resolve(request: Request) -> Plan:
    """The runs that `request` means; what it leaves out comes from the run's last command, if there was one.

    Raises UsageError for names, recipes and settings that cannot be right, InputError for a damaged run.json.
    """
    request, name, remembered = _recall(request)
    assert request.recipe is not None
    base = _make_run(request, name, None)  # first: a recipe that is not there gives no name
    check_run_name(name)
    if name.endswith(SUFFIX):
        raise UsageError(
            f"{name!r} cannot name an honest run: such names are kept for the published protocol.",
            f"Choose another --run NAME, or write --run {_without_suffix(name)} --protocol published.",
        )
    arguments = _arguments(replace(request, variant=None), name)
    members = _members(base.recipe, request.recipe)
    variants = [request.variant] if request.variant is not None else list(base.recipe.variants)
    if not variants:
        return Plan(base.name, request, (base,), remembered=remembered)
    runs, sharing = [], {}
    for variant in variants:
        if not NAME.fullmatch(variant):
            raise UsageError(f"{variant!r} cannot name a variant.", "Use letters, digits, '.', '_' and '-'.")
        if f"-{variant}".endswith(SUFFIX):
            raise UsageError(f"{variant!r} cannot name a variant: it would look like a protocol.", "Choose another.")
        run = _make_run(request, name, variant)
        if alike := tuple(itertools.takewhile(partial(_same, run, base), _SHARED)):
            sharing[run.name] = alike
            inputs = run.recipe.inputs.model_copy(update={s.writes: str(base.path(s.writes)) for s in alike})
            run = replace(run, recipe=run.recipe.model_copy(update={"inputs": inputs}))
        runs.append(run)
    shared = replace(base, arguments=arguments) if sharing else None
    plan = Plan(base.name, request, tuple(runs), shared, sharing, remembered)
    if request.variant is not None or not members:
        return plan
    evaluations = {plan.variant_of(run): run.path("evaluation") for run in runs if plan.variant_of(run) in members}
    together = replace(base, members={member: evaluations[member] for member in members})
    return replace(plan, ensemble=together)


def _members(recipe: Recipe, name: str) -> tuple[str, ...]:
    """The members that `recipe` names; UsageError if they cannot make an ensemble."""
    members = recipe.evaluate_ensemble.members
    where = f"evaluate_ensemble.members of recipe {name}"
    unknown = [member for member in members if member not in recipe.variants]
    if unknown:
        known = f"Variants: {', '.join(recipe.variants)}." if recipe.variants else "The recipe has no variants."
        raise UsageError(f"{where}: there is no variant {unknown[0]!r}.", known)
    if members and len(set(members)) < max(2, len(members)):
        raise UsageError(f"{where} are {', '.join(members)}.", "Name two variants or more, each once.")
    return members


def needed(run: Run, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """`stages` without those whose output nothing reads, because the recipe's [inputs] name what comes after them."""
    wanted: set[str] = {stages[-1].writes} if stages else set()
    kept = []
    for stage in reversed(stages):
        if stage.writes in wanted:
            kept.append(stage)
            if run.given(stage.writes) is None:
                wanted.update(run.inputs_of(stage))
    return tuple(reversed(kept))


def existing(home: Path) -> list[str]:
    """Names of the runs that were ever started below `home`."""
    return sorted(path.parent.name for path in (home / "data").glob(f"*/{ARGUMENTS_FILE}"))


def check_exists(name: str, home: Path) -> None:
    """InputError, with the runs that there are, if nobody ever made the run `name`."""
    if _is_there(name, home):
        return
    known = existing(home)
    mend = f"Runs here: {', '.join(known)}." if known else "There are no runs here yet: python -m pipeline run."
    raise InputError(f"There is no run {name!r} in {home.resolve()}.", mend)


def _is_there(name: str, home: Path) -> bool:
    return any((home / kind / name).is_dir() for kind in ("data", "models"))


def needs_force(stage_status: StageStatus) -> bool:
    """True if the stage has an output that was made with other settings: it is replaced only when asked."""
    return stage_status.state == "stale" or (stage_status.state == "partial" and stage_status.manifest is not None)


def remember(plan: Plan) -> None:
    """Write the arguments of `plan` beside the artifacts, so that `--run` alone gives the same again."""
    request = plan.request
    assert request.recipe is not None
    names: dict[str, str | None] = {plan.name: None}
    if plan.shared is not None or plan.runs[0].name != plan.name:
        names |= {run.name: run.name.removeprefix(f"{plan.name}-") for run in plan.runs}
    for name, variant in names.items():
        record = Remembered(
            recipe=request.recipe, set=list(request.overrides), variant=variant, source=request.source,
            protocol=request.protocol or "honest",
        )
        record.write(request.home, name)


def _recall(request: Request) -> tuple[Request, str, bool]:
    """The request with what it leaves out filled in, the run's name, and whether an earlier command gave it.

    The name comes without the suffix of the published protocol.
    """
    name = request.run or (default_name(request.recipe) if request.recipe else DEFAULT_RECIPE)
    if request.published:
        name = _without_suffix(name)
    if request.recipe is not None:
        return request, name, False
    found = last_of(request.home, name + SUFFIX) if request.published else None
    last = found or last_of(request.home, name)
    if last is None:
        if name not in shipped_recipes() and _is_there(name, request.home):
            raise UsageError(f"Nothing tells how the run {name} was made.", "Name its recipe: --recipe NAME|FILE.")
        return replace(request, recipe=name if name in shipped_recipes() else DEFAULT_RECIPE), name, False
    overrides: dict[str, str] = {}
    for override in (*last.set, *request.overrides):
        key = override.partition("=")[0]
        overrides = {old: o for old, o in overrides.items() if old != key and not old.startswith(f"{key}.")}
        overrides[key] = override  # what comes later has the last word
    if request.source is not None:
        overrides.pop(_SOURCE, None)
    named = any(override.partition("=")[0] == _SOURCE for override in request.overrides)
    filled = replace(
        request, recipe=last.recipe, overrides=tuple(overrides.values()),
        source=request.source or (None if named else last.source),
        variant=request.variant or last.variant, protocol=request.protocol or last.protocol,
    )
    if last.variant is not None:
        if not name.endswith(f"-{last.variant}"):
            raise UsageError(
                f"{name} was made as variant {last.variant}, and its name does not end so.",
                f"Rename its folders to {name}-{last.variant} (a shared corpus to {name}), or name a --recipe.",
            )
        name = name.removesuffix(f"-{last.variant}")
    return filled, _without_suffix(name) if filled.published else name, True


def _without_suffix(name: str) -> str:
    return name.removesuffix(SUFFIX)


_SOURCE = f"{PREPARE.name}.source"


def default_name(recipe: str) -> str:
    """The run name of a recipe: its own, or the stem of its file."""
    return Path(recipe).stem if recipe.endswith(".toml") else recipe


def _arguments(request: Request, name: str) -> tuple[str, ...]:
    """The shortest command line that gives `request` again; `name` comes without the suffix of a protocol."""
    assert request.recipe is not None
    arguments = ["--recipe", request.recipe]
    if name != default_name(request.recipe):
        arguments += ["--run", name]
    if request.published:
        arguments += ["--protocol", "published"]
    if request.variant is not None:
        arguments += ["--variant", request.variant]
    for override in request.overrides:
        arguments += ["--set", override]
    if request.source is not None:
        arguments += ["--source", request.source]
    if request.home != Path():
        arguments += ["--home", str(request.home)]
    return tuple(arguments)


def _make_run(request: Request, name: str, variant: str | None) -> Run:
    assert request.recipe is not None
    overrides = list(request.overrides)
    if request.source is not None:
        overrides.append(f"{_SOURCE}={json.dumps(request.source, ensure_ascii=False)}")
    if request.published:
        for override, wanted in itertools.product(request.overrides, protocols.overrides()):
            same = override_value(override) == override_value(wanted)
            if not same and override.partition("=")[0] == wanted.partition("=")[0]:
                raise UsageError(f"--protocol published sets {wanted}, not {override}.", "Leave out one of the two.")
        overrides += protocols.overrides()
    recipe: Recipe = load_recipe(request.recipe, overrides, variant)
    full_name = "-".join(filter(None, (name + SUFFIX if request.published else name, variant)))
    return Run(full_name, recipe, request.home, _arguments(replace(request, variant=variant), name))


_SHARED = STAGES[:3]
"""What they make is shared by variants as far as their settings are those of the recipe: corpus, tokens, ids."""


def _same(run: Run, base: Run, stage: Stage) -> bool:
    """True if `run` reads what `stage` makes of `base`; a seed of its own is for training, not for other splits."""
    def reads(one: Run) -> list[Path]:
        return [one.path(slot) for slot in one.inputs_of(stage) if slot in stage.may_read]

    return (
        run.given(stage.writes) is None
        and getattr(run.recipe, stage.name) == getattr(base.recipe, stage.name)
        and reads(run) == reads(base)
    )
