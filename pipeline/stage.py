"""The stage contract, once for all stages: fingerprint, skip, refuse, resume, seal.

A stage reads sealed artifacts and writes one. `STAGES` names every stage of the line, its inputs and its output;
`ENSEMBLE` reads the ends of several lines. The work itself is `run(context)` in `pipeline.stages.<name>`, imported only
when it has to run.
"""

import difflib
import importlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import artifact as artifacts
from pipeline import custody, differences, making, ranks, stopping
from pipeline.artifact import Artifact, Manifest
from pipeline.attempt import RESUME, Attempt, parts_path, unfinished
from pipeline.errors import InputError, UsageError
from pipeline.making import Order, StageOutcome
from pipeline.pretrained import MODEL_SLOTS, shipped
from pipeline.progress import Reporter
from pipeline.ranks import ALONE, Ranks
from pipeline.recipe import Recipe
from pipeline.settings import Section


@dataclass(frozen=True)
class Stage:
    """One stage of the line. `code_version` goes up when the same settings would give another output."""

    name: str
    reads: tuple[str, ...]
    writes: str
    summary: str
    code_version: int = 1
    may_read: tuple[str, ...] = ()
    """Inputs that are used when the recipe names them."""
    run_settings: tuple[str, ...] = ()
    """Settings of the [run] section that shape the output."""
    gathers: str = ""
    """Slot of the artifacts, one of every member of the run, that are read beside `reads`."""
    trains: bool = False
    """True if several processes can share its work."""


STAGES: tuple[Stage, ...] = (
    Stage(
        "prepare_corpus", (), "corpus", "Read documents from an archive, folder, table, text file or generator; split.",
        code_version=2, run_settings=("seed",),
    ),
    Stage("tokenize_corpus", ("corpus",), "tokens", "Split every document into word, subword or character tokens.",
          code_version=2, may_read=("start_lm",)),
    Stage("numericalize_corpus", ("tokens",), "ids", "Choose the vocabulary and turn tokens into ids.",
          may_read=("start_lm",)),
    Stage("finetune_lm", ("ids",), "lm", "Train the AWD_LSTM language model, from scratch or from an earlier one.",
          may_read=("start_lm",), run_settings=("seed", "direction", "precision"), trains=True),
    Stage("train_classifier", ("ids", "lm"), "classifier", "Train the classifier on the language model's encoder.",
          code_version=2, may_read=("start_classifier",), run_settings=("seed", "direction", "precision"), trains=True),
    Stage("evaluate_classifier", ("corpus", "ids", "classifier"), "evaluation",
          "Score the classifier on the test split, beside a TF-IDF baseline.", code_version=3,
          run_settings=("seed", "precision")),
)
PREPARE, TOKENIZE = STAGES[:2]
STAGE_NAMES = tuple(stage.name for stage in STAGES)
ENSEMBLE = Stage(
    "evaluate_ensemble", (), "ensemble", "Average the predictions of several evaluated classifiers and score them.",
    run_settings=("seed",), gathers="evaluation",
)
_HOMES = {"corpus": "data", "tokens": "data", "ids": "data", "lm": "models", "classifier": "models",
          "evaluation": "models", "ensemble": "models"}
_MEMBER = "member "


def member_slot(name: str) -> str:
    """What the input that belongs to the member `name` is called; no slot of the line has such a name."""
    return _MEMBER + name


def member_name(slot: str) -> str:
    """The member that an input called by `member_slot` belongs to."""
    return slot.removeprefix(_MEMBER)


@dataclass(frozen=True)
class Source:
    """Outside data found by a stage's `locate_source`: where it is now and what it is."""

    path: Path | None
    identity: dict[str, Any]
    """Kind, sha256, size: enters the fingerprint."""
    record: dict[str, Any] = field(default_factory=dict)
    """Address, time stamp: goes into the manifest beside the identity."""


@dataclass
class StageContext:
    """What a stage gets to work with."""

    recipe: Recipe
    settings: Any
    """The stage's own recipe section."""
    inputs: dict[str, Artifact]
    source: Source | None
    fingerprint: str
    """Of the artifact that is being made."""
    work: Path
    """Folder to write the output into; all files in it become the artifact."""
    resuming: bool
    """True if `work` holds pieces of an earlier attempt with the same fingerprint."""
    reporter: Reporter
    parts: Path | None = None
    """Folder of the shares that several jobs make (`pipeline.parts`); there only if any did."""
    ranks: Ranks = ALONE
    """The processes that train together."""

    @property
    def resume(self) -> Path:
        """Folder for what only an interrupted attempt needs; not part of the artifact."""
        return self.work / RESUME

    @property
    def kept(self) -> Path:
        """Where finished pieces are: beside those of other jobs, if any has made a share, else in `resume`."""
        return self.parts if self.parts is not None and self.parts.exists() else self.resume


@dataclass(frozen=True)
class Run:
    """A recipe with a name and a home: where its artifacts are and how to call it again."""

    name: str
    recipe: Recipe
    home: Path
    arguments: tuple[str, ...] = ()
    """Command-line arguments that give this recipe again: --recipe, --set, --run, ..."""
    members: Mapping[str, Path] = field(default_factory=dict)
    """Of an ensemble: folder of each member's evaluation, by its name."""
    output: Path | None = None
    """Folder of the ensemble, if that is not a place below `home`."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What a run goes through: the line, or the one stage of an ensemble."""
        return (ENSEMBLE,) if self.members else STAGES

    def path(self, slot: str) -> Path:
        """Folder of the artifact `slot`; one named in [inputs] is used where it lies."""
        if slot.startswith(_MEMBER):
            return self.members[member_name(slot)]
        if slot == ENSEMBLE.writes and self.output is not None:
            return self.output
        given = self.given(slot)
        if given is not None:
            return given
        folder = f"{slot}-{self.recipe.run.direction}" if slot in ("lm", "classifier") else slot
        return self.home / _HOMES[slot] / self.name / folder

    def given(self, slot: str) -> Path | None:
        """The path that [inputs] names for `slot`, if any; a model that ships with the package is named by its name."""
        value = getattr(self.recipe.inputs, slot, None)
        if value is None:
            return None
        path, kind = Path(os.path.expanduser(value)), slot.removeprefix("start_")
        by_name = None if path.exists() or kind not in MODEL_SLOTS else shipped(value, kind, self.recipe.run.direction)
        return by_name or path

    def inputs_of(self, stage: Stage) -> tuple[str, ...]:
        """Slots that `stage` reads in this run; those of members are called by `member_slot`.

        A language model whose vocabulary is matched, not inherited, is read by the stage that starts from it alone.
        """
        inherits = self.recipe.finetune_lm.vocabulary == "inherit"
        optional = tuple(
            slot for slot in stage.may_read
            if self.given(slot) is not None and (inherits or slot != "start_lm" or stage.name == "finetune_lm")
        )
        return stage.reads + optional + (tuple(map(member_slot, self.members)) if stage.gathers else ())

    def command(self, command: str, *extra: str) -> str:
        """The exact command line that calls `command` for this run."""
        return shlex.join(["python", "-m", "pipeline", command, *self.arguments, *extra])

    def again(self, *extra: str) -> str:
        """The command line that makes all artifacts of this run."""
        return self.command("run" if self.output is None else ENSEMBLE.name, *extra)

    def settings(self, stage: Stage) -> dict[str, dict[str, Any]]:
        """The settings that shape the output of `stage`, by section."""
        section: Section = getattr(self.recipe, stage.name)
        run = self.recipe.run.affecting_output()
        return {stage.name: section.affecting_output(), "run": {key: run[key] for key in stage.run_settings}}


def stage_named(name: str) -> Stage:
    """The stage called `name`; UsageError suggests the nearest, or says where the ensemble is made."""
    if name in STAGE_NAMES:
        return STAGES[STAGE_NAMES.index(name)]
    if name == ENSEMBLE.name:
        mend = f"Leave out --until: it comes last by itself. Alone it is: python -m pipeline {name}."
        raise UsageError(f"{name} follows the stages that --from and --until choose from.", mend)
    near = difflib.get_close_matches(name, STAGE_NAMES, 1, 0.0)
    raise UsageError(f"There is no stage {name!r}.", f"Did you mean {near[0]!r}? Stages: {', '.join(STAGE_NAMES)}.")


def select(first: str | None, last: str | None) -> tuple[Stage, ...]:
    """The stages from `first` to `last`, both included."""
    start = STAGE_NAMES.index(stage_named(first).name) if first else 0
    stop = STAGE_NAMES.index(stage_named(last).name) if last else len(STAGES) - 1
    if start > stop:
        raise UsageError(f"--from {first} comes after --until {last}.", "Exchange the two.")
    return STAGES[start : stop + 1]


def fingerprint_of(run: Run, stage: Stage, inputs: dict[str, str], source: dict[str, Any] | None) -> str:
    """SHA-256 of everything that shapes the output: stage, code version, settings, inputs, source."""
    return artifacts.hash_json(
        {
            "stage": stage.name,
            "code_version": stage.code_version,
            "settings": run.settings(stage),
            "inputs": inputs,
            "source": source,
        }
    )


def what_differs(run: Run, stage: Stage, manifest: Manifest | Attempt) -> str:
    """The settings, inputs or code that differ between an artifact, or an attempt, and what the recipe asks for."""
    found = differences.between(manifest, run.settings(stage), stage.code_version, run.inputs_of(stage))
    return "; ".join(found) or ("its input changed" if run.inputs_of(stage) else "its source changed")


def run_stage(run: Run, stage: Stage, reporter: Reporter, force: bool = False) -> Artifact:
    """Make the output of `stage`, or find it sealed and unchanged.

    Raises InputError if an input is missing, damaged or replaced meanwhile, or if the output was made with other
    settings and `force` is not set; LockedError, StorageError, OutOfMemoryError and what the stage itself raises.
    """
    target = run.path(stage.writes)
    if run.given(stage.writes) is not None:
        found = artifacts.open_artifact(target, stage.writes)
        reporter.line(f"{stage.name}: using {target}, as the recipe says")
        return found
    with making.held(target, stage.name, _smaller(run, stage)):
        return _run_locked(run, stage, target, reporter, force)


def _run_locked(run: Run, stage: Stage, target: Path, reporter: Reporter, force: bool) -> Artifact:
    inputs = open_inputs(run, stage)
    before = making.manifest_before(target, force, stage.writes)
    source = source_of(run, stage, before, reporter)
    records = {slot: artifact.as_input(run.home) for slot, artifact in inputs.items()}
    fingerprint = fingerprint_of(
        run, stage, {slot: record.fingerprint for slot, record in records.items()}, source.identity if source else None
    )
    order = Order(
        target=target, slot=stage.writes, stage=stage.name, code_version=stage.code_version, fingerprint=fingerprint,
        settings=run.settings(stage), inputs=records,
        source={"identity": source.identity, **source.record} if source else None,
    )
    found = making.unchanged(order, before, reporter, force)
    if found is not None:
        return found
    if before is not None and before.fingerprint != fingerprint and not force:
        raise InputError(
            f"{target} was made with other settings: {what_differs(run, stage, before)}.",
            f"Replace it and what follows: {run.again('--force')}{'' if run.output else ' (or choose a new --run)'}.",
        )
    attempt = unfinished(target)
    if attempt is not None and attempt.checkpoints and attempt.fingerprint != fingerprint and not force:
        raise InputError(
            f"{target} has an unfinished attempt with other settings: {what_differs(run, stage, attempt)}.",
            f"Go on with those settings, or discard its checkpoints: {run.again('--force')}",
        )

    def work(folder: Path, resuming: bool) -> StageOutcome:
        context = StageContext(
            run.recipe, getattr(run.recipe, stage.name), inputs, source, fingerprint, folder, resuming, reporter,
            parts_path(target, fingerprint), ranks.here(),
        )
        if stage.trains:
            context.ranks.give(stage.name, context)
        return _module(stage).run(context)

    return making.make(order, work, reporter, inputs)


def source_of(run: Run, stage: Stage, before: Manifest | None, reporter: Reporter) -> Source | None:
    """The outside data that `stage` reads, found and identified; None for a stage that reads none.

    `before` is the manifest of what it made earlier. Raises InputError if the data is not there or not as it should be.
    """
    if stage != PREPARE:
        return None
    found: Source = _module(stage).locate_source(run.recipe.prepare_corpus, before, run.home, reporter)
    return found


def open_inputs(run: Run, stage: Stage) -> dict[str, Artifact]:
    """What `stage` reads; InputError if something is missing, damaged, or does not belong to the rest."""
    inputs = {slot: artifacts.open_artifact(*find_input(run, stage, slot)) for slot in run.inputs_of(stage)}
    matched = run.recipe.finetune_lm.vocabulary == "match"
    custody.check_inputs(stage.name, inputs, run.recipe.run.direction, run.command, matched=matched)
    return inputs


def _smaller(run: Run, stage: Stage) -> str:
    """The command that asks for half the batch, if the stage has batches, and larger ones than the least it takes."""
    section = getattr(run.recipe, stage.name)
    field = type(section).model_fields.get("bs")
    least = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), 1) if field else 1
    bs = getattr(section, "bs", least)
    force = () if stage.name == "evaluate_classifier" else ("--force",)
    smaller = run.command("run", "--set", f"{stage.name}.bs={max(least, bs // 2)}", *force)
    return smaller if bs > least else ""


def _module(stage: Stage) -> Any:
    """The module, imported when needed (seconds): `run(context)`; `locate_source` to prepare, `prepare` to train."""
    return importlib.import_module(f"pipeline.stages.{stage.name}")


def find_input(run: Run, stage: Stage, slot: str) -> tuple[Path, str]:
    """Folder and kind of what `stage` reads as `slot`; InputError if there is none, or one of another kind."""
    path, kind = run.path(slot), stage.gathers if slot.startswith(_MEMBER) else slot.removeprefix("start_")
    manifest, mend = artifacts.read_manifest(path), "Correct [inputs]."
    if manifest is None:
        maker = next((s for s in STAGES if s.writes == slot), None)
        if maker and run.given(slot) is None:
            mend = f"Make it first: {run.command('run', '--until', maker.name)}"
        if path.parts[-3:] in (("models", "wt103", "lm-fwd"), ("models", "wt103", "lm-bwd")):
            archive, scratch = path.name.replace("lm", "wt103"), run.command("run", "--set", f"inputs.{slot}=none")
            mend = f"Fetch it: python -m pipeline import-fastai {archive} (or train from scratch: {scratch})."
        if slot.startswith(_MEMBER):
            mend = f"Make it first: {run.again()}" if run.output is None else "Name the folder of a sealed evaluation."
        raise InputError(f"{stage.name} needs {path}, which is not there or not sealed.", mend)
    if manifest.slot != kind:
        raise InputError(f"{path} holds {manifest.slot}, not {kind}.", "Name an artifact of the right kind.")
    return path, kind


def run_stages(run: Run, stages: Sequence[Stage], reporter: Reporter, force: bool = False) -> None:
    """Run `stages` in order; each one that is sealed and unchanged is skipped."""
    for stage in stages:
        stopping.check(f"The run {run.name}, before {stage.name},")
        run_stage(run, stage, reporter, force)
