"""What each of several processes does with a command: rank 0 carries it out, the others follow its orders."""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import ranks, stopping
from pipeline.artifact import Artifact, read_manifest
from pipeline.errors import DivergedError, InputError, LostRankError, PipelineError, Stopped
from pipeline.machine import limit_behind
from pipeline.progress import Reporter, printable
from pipeline.ranks import Dismissed, Ranks
from pipeline.recipe import Recipe
from pipeline.stage import StageContext


def as_rank(command: Callable[[], None]) -> None:
    """Call `command` in a process that is alone, or rank 0; be one of the others elsewhere.

    Where there are several processes, all of them end here with the exit code of rank 0.
    """
    try:
        here = ranks.join()
    except PipelineError as error:
        sys.exit(_told(error))
    if here.size == 1:
        command()
        return
    exit_code = _lead(here, command) if here.first else _follow(here)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(exit_code)  # connections to a process that is gone keep an orderly end waiting


def _lead(here: Ranks, command: Callable[[], None]) -> int:
    exit_code = 1
    try:
        command()
        exit_code = 0
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
    here.dismiss(exit_code)
    return exit_code


def _follow(here: Ranks) -> int:
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        reporter = Reporter(nowhere)
        with stopping.signals_ask(reporter):
            try:
                for order in here.orders():
                    _obey(order, here, reporter)
            except Dismissed as end:
                return end.exit_code
            except LostRankError as error:
                return _told(error)
    raise AssertionError("orders end with an exception")


def _obey(order: dict[str, Any], here: Ranks, reporter: Reporter) -> None:
    """Train along; what goes wrong here alone is left word of, and rank 0 ends with it."""
    from pipeline.training.group import Group
    from pipeline.training.phases import train_stage

    try:
        context = _context(order, here, reporter)
        train_stage(context, importlib.import_module(f"pipeline.stages.{order['stage']}").prepare(context))
    except (Dismissed, LostRankError):
        raise
    except (Stopped, DivergedError):  # on all ranks
        return
    except Exception as error:
        expected = error if isinstance(error, PipelineError) else limit_behind(error, order["stage"])
        if expected is None:
            traceback.print_exc()
        here.fail(expected or error)
        Group.leave()


def _context(order: dict[str, Any], here: Ranks, reporter: Reporter) -> StageContext:
    recipe = Recipe.model_validate(order["recipe"])
    inputs = {slot: _artifact(Path(path)) for slot, path in order["inputs"].items()}
    return StageContext(
        recipe, getattr(recipe, order["stage"]), inputs,
        None, order["fingerprint"], Path(order["work"]), order["resuming"], reporter, None, here,
    )


def _artifact(path: Path) -> Artifact:
    """What rank 0 has verified."""
    manifest = read_manifest(path)
    if manifest is None:
        raise InputError(f"{path} is not there.", "The processes need a file system that all of them see.")
    return Artifact(path, manifest)


def _told(error: PipelineError) -> int:
    print(printable(f"error: {error}"), file=sys.stderr, flush=True)
    return int(error.exit_code)
