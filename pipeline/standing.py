"""Where every stage of a run stands, told from manifests alone: nothing is run and nothing large is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline import artifact as artifacts
from pipeline.artifact import Manifest
from pipeline.attempt import unfinished
from pipeline.errors import InputError
from pipeline.stage import Run, Stage, fingerprint_of, what_differs

State = Literal["sealed", "partial", "stale", "missing"]


@dataclass(frozen=True)
class StageStatus:
    """Where a stage of a run stands."""

    stage: Stage
    state: State
    why: str
    fingerprint: str | None
    path: Path
    manifest: Manifest | None
    given: bool = False
    """True if the recipe's [inputs] section names this artifact."""


def status(run: Run, known: Mapping[str, str | None] | None = None) -> list[StageStatus]:
    """Where every stage of `run` stands, without running or hashing anything large.

    `known` are fingerprints that inputs from other runs should have, by slot; others are as they lie.
    """
    fingerprints: dict[str, str | None] = dict(known or {})
    return [_stage_status(run, stage, fingerprints) for stage in run.stages]


def _stage_status(run: Run, stage: Stage, fingerprints: dict[str, str | None]) -> StageStatus:
    """Status of one stage; `fingerprints` maps the slots before it to what they should be and gets its own."""
    path, slot = run.path(stage.writes), stage.writes
    given = run.given(slot) is not None
    try:
        manifest = artifacts.read_manifest(path)
    except InputError as error:
        fingerprints[slot] = None
        return StageStatus(stage, "stale", error.what, None, path, None, given)
    if given:
        fits = manifest is not None and manifest.slot == slot
        found = manifest.fingerprint if manifest and fits else None
        fingerprints.setdefault(slot, found)
        lacks = f"holds {manifest.slot}, not {slot}" if manifest else "does not exist"
        why = f"given in the recipe: {path}" if fits else f"the recipe names {path}, which {lacks}"
        return StageStatus(stage, "sealed" if fits else "missing", why, found, path, manifest, True)
    expected = _expected_fingerprint(run, stage, fingerprints, manifest)
    fingerprints[slot] = expected
    if manifest is not None and manifest.fingerprint == expected:
        missing = next((name for name in manifest.files if not (path / name).is_file()), None)
        why = f"{path / missing} is missing" if missing else "nothing changed"
        return StageStatus(stage, "stale" if missing else "sealed", why, expected, path, manifest)
    attempt = unfinished(path)
    state: State = "missing"
    why = "not run yet"
    if attempt is not None and (attempt.fingerprint == expected or (expected is None and manifest is None)):
        state, why = "partial", "stopped before it was sealed"
    elif manifest is not None:
        state, why = "stale", what_differs(run, stage, manifest)
    elif attempt is not None and attempt.checkpoints:
        state, why = "stale", f"an unfinished attempt had other settings: {what_differs(run, stage, attempt)}"
    return StageStatus(stage, state, why, expected, path, manifest)


def _expected_fingerprint(
    run: Run, stage: Stage, fingerprints: dict[str, str | None], manifest: Manifest | None
) -> str | None:
    inputs: dict[str, str] = {}
    for slot in run.inputs_of(stage):
        if slot in fingerprints:
            found = fingerprints[slot]
        else:
            outside = artifacts.read_manifest(run.path(slot))
            found = outside.fingerprint if outside else None
        if found is None:
            return None
        inputs[slot] = found
    source = None
    if stage.name == "prepare_corpus":
        from pipeline.corpus.source import known_identity, pinned_identity

        settings, sealed = run.recipe.prepare_corpus, manifest.source if manifest else None
        source = pinned_identity(settings)
        if source is None and settings.source is not None:
            source = known_identity(settings, sealed)
        elif source is None and sealed is not None:
            source = known_identity(settings.model_copy(update={"source": sealed.get("path")}), sealed)
            source = source or sealed["identity"]
        if source is None:
            return None
    return fingerprint_of(run, stage, inputs, source)
