"""Making one sealed artifact, for stages and imports alike: lock, leave what is unchanged, work, seal."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline import artifact as artifacts
from pipeline import attempt as attempts
from pipeline import lock, machine, provenance
from pipeline.artifact import Artifact, InputRecord, Manifest
from pipeline.errors import InputError
from pipeline.hardware import describe_machine, machine_in_words
from pipeline.progress import Reporter, format_duration


@dataclass(frozen=True)
class Order:
    """What is to be made, and of what: all that is known before the work begins. The fields are the manifest's."""

    target: Path
    slot: str
    stage: str
    code_version: int
    fingerprint: str
    settings: dict[str, dict[str, Any]]
    inputs: dict[str, InputRecord] = field(default_factory=dict)
    source: dict[str, Any] | None = None
    anonymous: bool = False
    """It is to be given away: its manifest names no host and no job."""


@dataclass(frozen=True)
class StageOutcome:
    """What a stage reports for its manifest."""

    metrics: dict[str, Any]
    identity: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    hardware: str | None = None
    """Where it is not the processor of this machine."""
    precision: dict[str, str] | None = None
    cost: tuple[float, float] | None = None
    """Seconds and peak memory in MB, where this process did not do the work."""


@contextlib.contextmanager
def held(target: Path, stage: str, smaller: str = "") -> Iterator[None]:
    """The only right to make `target`, with a replacement that was cut off put right.

    Raises LockedError; and StorageError and OutOfMemoryError in place of what the work raises when the machine is at
    its limits. `smaller` is the command that would ask for less memory.
    """
    with machine.limits_told(stage, smaller), lock.locked(target):
        artifacts.recover(target)
        yield


def manifest_before(target: Path, force: bool, slot: str | None = None) -> Manifest | None:
    """The manifest of what lies at `target`; InputError if it is damaged, None in that case with `force`.

    Files without a manifest are the user's, and what is not of the kind `slot` belongs to somebody else: not even
    `force` replaces them.
    """
    try:
        found = artifacts.read_manifest(target)
    except InputError:
        if not (force and (target / artifacts.MANIFEST).exists()):
            raise
        return None
    if found is not None and slot not in (None, found.slot):
        raise InputError(f"{target} holds {found.slot}, not {slot}.", "Choose another place, or move it away.")
    return found


def check_no_checkpoints(target: Path, force: bool, option: str) -> None:
    """InputError if an unfinished training at `target` would be lost, unless with `force`; `option` names the place."""
    attempt = attempts.unfinished(target)
    if attempt is not None and attempt.checkpoints and not force:
        raise InputError(
            f"{target} has an unfinished training with {attempt.checkpoints} checkpoints.",
            f"Discard it with --force, or choose another {option}.",
        )


def unchanged(order: Order, before: Manifest | None, reporter: Reporter, force: bool) -> Artifact | None:
    """The artifact of `order`, if `before` says that it was made already.

    Raises InputError if its files are damaged; with `force` it is then to be made anew.
    """
    if before is None or before.fingerprint != order.fingerprint:
        return None
    found = Artifact(order.target, before)
    try:
        artifacts.verify_files(found)
    except InputError:
        if not force:
            raise
        return None
    reporter.line(f"{order.stage}: nothing changed ({order.target})")
    return found


def make(
    order: Order, work: Callable[[Path, bool], StageOutcome], reporter: Reporter,
    inputs: Mapping[str, Artifact] = MappingProxyType({}),
) -> Artifact:
    """Do the work and seal what came of it. Call with the lock held.

    `work` gets the folder to write into, and whether it holds pieces of an earlier attempt at the same `order`. It
    reads `inputs`; InputError if one of them was replaced meanwhile.
    """
    folder, resuming = attempts.open_partial(
        order.target, order.fingerprint, code_version=order.code_version, settings=order.settings,
        inputs={slot: record.fingerprint for slot, record in order.inputs.items()},
    )
    reporter.line(f"{order.stage}: {'going on' if resuming else 'starting'} ({order.target})")
    started = time.monotonic()
    machine.reset_peak_memory()
    attempt = attempts.unfinished(order.target)
    spent_s = attempt.spent_s if attempt else 0.0
    outcome = work(folder, resuming)
    _check_stayed(order.target, inputs)
    commit, dirty = provenance.git_state()
    process, wall_s = provenance.this_process(), spent_s + time.monotonic() - started
    seconds, peak_mb = outcome.cost or (round(wall_s, 3), round(machine.peak_memory_mb(), 1))
    made_with = outcome.hardware or (None if order.anonymous else machine_in_words(describe_machine()))
    host, job_id = ("", None) if order.anonymous else (process["host"], process["job_id"])
    sealed = artifacts.seal(
        order.target,
        Manifest(
            slot=order.slot, stage=order.stage, code_version=order.code_version, fingerprint=order.fingerprint,
            settings=order.settings, inputs=order.inputs, source=order.source, identity=outcome.identity, files={},
            versions=provenance.installed_versions(), git_commit=commit, git_dirty=dirty, host=host,
            job_id=job_id, device=outcome.device, hardware=made_with, precision=outcome.precision,
            created=provenance.now(), wall_s=seconds, peak_memory_mb=peak_mb,
            metrics=outcome.metrics,
        ),
    )
    shutil.rmtree(attempts.parts_path(order.target, order.fingerprint), ignore_errors=True)
    reporter.line(f"{order.stage}: sealed in {format_duration(wall_s)} ({order.target})")
    return sealed


def _check_stayed(target: Path, inputs: Mapping[str, Artifact]) -> None:
    """InputError if one of `inputs` was replaced while it was read; what was made of both for `target` is removed."""
    for read in inputs.values():
        now = artifacts.read_manifest(read.path)
        if now is None or now.fingerprint != read.manifest.fingerprint:
            attempt = attempts.unfinished(target)
            if attempt is not None and not attempt.checkpoints:
                shutil.rmtree(attempts.partial_path(target))
            raise InputError(f"{read.path} was replaced while it was read.", "Type the same command again.")
