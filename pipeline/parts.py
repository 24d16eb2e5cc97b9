"""Shares of a stage's work, made by several jobs at once; the stage itself then puts them together and seals.

The result is that of the stage alone, byte for byte: a share holds pieces that it would have made in the same way.
"""

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline import machine
from pipeline.artifact import read_manifest
from pipeline.attempt import parts_path
from pipeline.errors import UsageError
from pipeline.lock import locked
from pipeline.progress import Reporter
from pipeline.stage import Run, Stage, StageContext, fingerprint_of, open_inputs, source_of


@dataclass(frozen=True)
class Share:
    """The pieces `number`, `number + of`, `number + 2 * of`, ... of the work, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """`2/8` is the second of eight; UsageError for what is none."""
        number, slash, of = text.partition("/")
        if not (slash and number.isascii() and of.isascii() and number.isdigit() and of.isdigit()):
            raise UsageError(f"--shard {text!r} is no share.", "Write I/N, such as 1/8 to 8/8.")
        share = cls(int(number), int(of))
        if not 1 <= share.number <= share.of:
            raise UsageError(f"--shard {text!r} is no share.", f"Shares of {share.of} are 1/{share.of} to "
                             f"{share.of}/{share.of}.")
        return share

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def make_share(run: Run, stage: Stage, share: Share, reporter: Reporter) -> None:
    """Make `share` of the work of `stage`, or find it made; nothing is sealed.

    If the stage itself seals the whole meanwhile, that is what was wanted. Raises what the stage raises, UsageError if
    the recipe names what the stage would make, and LockedError if the same share is being made.
    """
    target = run.path(stage.writes)
    if run.given(stage.writes) is not None:
        raise UsageError(f"The recipe names {target}: {stage.name} has nothing to make.", "Leave out --shard.")
    with machine.limits_told(stage.name):
        inputs = open_inputs(run, stage)
        fingerprints = {slot: artifact.manifest.fingerprint for slot, artifact in inputs.items()}
        source = source_of(run, stage, read_manifest(target), reporter)
        fingerprint = fingerprint_of(run, stage, fingerprints, source.identity if source else None)
        folder = parts_path(target, fingerprint)
        context = StageContext(
            run.recipe, getattr(run.recipe, stage.name), inputs, source, fingerprint,
            folder / f"work-{share.number}-of-{share.of}", True, reporter, folder,
        )
        try:
            if not _is_sealed(target, fingerprint):
                _make(context, stage, share)
                reporter.line(f"{stage.name}: share {share} is made; the stage itself puts the shares together")
                return
        except FileNotFoundError:  # the folder of shares goes when the whole is sealed
            if not _is_sealed(target, fingerprint):
                raise
    reporter.line(f"{stage.name}: nothing changed ({target})")


def _is_sealed(target: Path, fingerprint: str) -> bool:
    manifest = read_manifest(target)
    return manifest is not None and manifest.fingerprint == fingerprint


def _make(context: StageContext, stage: Stage, share: Share) -> None:
    assert context.parts is not None
    with locked(context.parts / f"share-{share.number}-of-{share.of}"):
        shutil.rmtree(context.work, ignore_errors=True)
        context.work.mkdir()
        importlib.import_module(f"pipeline.stages.{stage.name}").run_share(context, share.number, share.of)
        shutil.rmtree(context.work)
