"""One rung with one seed as a sealed artifact, made by the same contract as the stages' own."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import making
from pipeline.artifact import Artifact, hash_json, open_artifact
from pipeline.attempt import RESUME
from pipeline.errors import InputError
from pipeline.ladder import classification, counting, language_model, linear
from pipeline.ladder.rungs import KNESER_NEY, ClassifierSettings, Rung
from pipeline.ladder.scoring import labelled
from pipeline.making import Order, StageOutcome
from pipeline.progress import Reporter
from pipeline.stage import Run
from pipeline.text.ids import IdStore
from pipeline.training.device import keep_freed_memory, resolve_device

SLOT = "rung"
CODE_VERSION = 1
"""Goes up when the same settings would give another rung."""


def folder_of(run: Run) -> Path:
    """Folder of all rungs of a run, and of their comparison."""
    return run.home / "models" / run.name / "ladder"


def make_rung(run: Run, rung: Rung, seed: int, reporter: Reporter, *, force: bool) -> Artifact:
    """The sealed artifact of `rung`, made of the run's ids unless it is there already.

    Small models run in fp32: there is nothing to gain from less. Classifiers look at as many labels as the run's own
    does. Raises InputError if the artifact was made of other ids or by another version and `force` is not set;
    DataError for a classifier without labelled documents; Stopped if a stop was asked for.
    """
    alike = rung.same_for_every_seed(run.recipe.train_classifier.labelled)
    target = folder_of(run) / (rung.name if alike else f"{rung.name}-s{seed}")
    with making.held(target, rung.name):
        before = making.manifest_before(target, force)
        ids = open_artifact(run.path("ids"), "ids")
        splits = None
        if rung.kind == "classifier":
            splits = labelled(
                IdStore.open(ids), run.recipe.train_classifier.labelled, seed, learns_valid=_learns_valid(run, rung)
            )
            rung = _for_corpus(rung, len(splits.train))
        order = _order(run, rung, seed, target, ids)
        found = making.unchanged(order, before, reporter, force)
        if found is not None:
            return found
        if before is not None and not force:
            raise InputError(
                f"{target} was made of other ids, or with other settings of the rung.",
                f"Replace it: {command_for(run, [rung.name], seed - run.recipe.run.seed + 1, '--force')}",
            )

        def work(folder: Path, resuming: bool) -> StageOutcome:
            if rung.name == KNESER_NEY:
                return counting.train(ids, folder)
            if rung.settings is None:
                assert splits is not None
                return linear.train(rung, ids, splits, seed, folder)
            keep_freed_memory()
            device = resolve_device(run.recipe.run.model_copy(update={"precision": "fp32"}))
            how: dict[str, Any] = {
                "seed": seed, "device": device, "work": folder, "resume": folder / RESUME,
                "fingerprint": order.fingerprint, "reporter": reporter,
            }
            if splits is None:
                return language_model.train(rung, ids, **how)
            return classification.train(rung, ids, splits, **how)

        return making.make(order, work, reporter, {"ids": ids})


def command_for(run: Run, rungs: Sequence[str], n_seeds: int, *extra: str) -> str:
    """The command line that makes `rungs` on the ids of `run` with `n_seeds` seeds."""
    words = ["--on", run.name, "--rungs", ",".join(rungs), *(["--seeds", str(n_seeds)] if n_seeds > 1 else []), *extra]
    words += [] if run.home == Path() else ["--home", str(run.home)]
    return shlex.join(["python", "-m", "pipeline", "compare", *words])


def _learns_valid(run: Run, rung: Rung) -> bool:
    """True for a rung that chooses nothing, in a run whose classifier learns from the validation documents, too."""
    published = run.recipe.train_classifier.validate_on == "test"
    return published and rung.kind == "classifier" and rung.settings is None


def _for_corpus(rung: Rung, n_documents: int) -> Rung:
    """`rung` with the epochs that it has on so many documents."""
    if not isinstance(rung.settings, ClassifierSettings):
        return rung
    return replace(rung, settings=rung.settings.for_documents(n_documents))


def _order(run: Run, rung: Rung, seed: int, target: Path, ids: Artifact) -> Order:
    settings: dict[str, Any] = {"rung": rung.name}
    if rung.settings is not None:
        settings |= rung.settings.affecting_output()
    draw = run.recipe.train_classifier.labelled if rung.kind == "classifier" else None
    if draw is not None:
        settings["labelled"] = draw
    if _learns_valid(run, rung):
        settings["learns"] = ["train", "valid"]
    if not rung.same_for_every_seed(draw):
        settings["seed"] = seed
    inputs = {"ids": ids.as_input(run.home)}
    fingerprint = hash_json(
        {"code_version": CODE_VERSION, "settings": settings, "inputs": {"ids": ids.manifest.fingerprint}}
    )
    return Order(
        target=target, slot=SLOT, stage=rung.name, code_version=CODE_VERSION, fingerprint=fingerprint,
        settings={"ladder": settings}, inputs=inputs,
    )
