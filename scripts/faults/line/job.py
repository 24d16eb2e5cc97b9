"""The pipeline's command line, able to die inside a save or to run out of disk.

Environment: FAULT_SAVE=<number of the save, from 1>:<where>, where <where> is `before-N` or `after-N` (`kill -9` around
the save's Nth fsync or rename) or a number of microseconds after which the kernel ends the process wherever it is;
FAULT_SAVES=<file that gets the number of saves>; FAULT_FILE_BYTES=<largest file that can be written>;
FAULT_SPARE_BYTES=<what a save leaves free on the disk>.
"""

import atexit
import functools
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import artifact, attempt, cli, storage
from pipeline.text import shards
from pipeline.training.checkpoints import CheckpointStore

SYSTEM_CALLS = ("fsync", "rename", "replace")


class Saves:
    """Counts the saves of a process: checkpoints, shards, small files and the sealing of artifacts."""

    def __init__(self, victim: int, where: str) -> None:
        self.number = self.calls = self.depth = 0
        self.victim, self.where = victim, where

    def watch(self, save: Callable[..., Any]) -> Callable[..., Any]:
        """`save` with this count around it; a save inside a save is a part of it."""

        @functools.wraps(save)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.depth += 1
            if self.depth == 1:
                self.number += 1
                self.calls = 0
                if self.number == self.victim and self.where.isdigit():
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends us, whatever runs
                    signal.setitimer(signal.ITIMER_REAL, int(self.where) / 1e6)
            try:
                return save(*args, **kwargs)
            finally:
                self.depth -= 1
                if self.number == self.victim and not self.depth:
                    os.kill(os.getpid(), signal.SIGKILL)  # the save was over sooner

        return watched

    def watch_call(self, name: str) -> None:
        """Count a system call of saves, and die around the chosen one."""
        call = getattr(os, name)

        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            chosen = self.depth > 0 and self.number == self.victim
            if chosen and self.where == f"before-{self.calls}":
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if chosen and self.where == f"after-{self.calls}":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(os, name, watched)


def arm() -> None:
    """Make this process as faulty as its environment says."""
    if limit := os.environ.get("FAULT_FILE_BYTES"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    if spare := os.environ.get("FAULT_SPARE_BYTES"):
        storage.SPARE_BYTES = int(spare)
    victim, _, where = os.environ.get("FAULT_SAVE", "0:").partition(":")
    saves = Saves(int(victim), where)
    for name in SYSTEM_CALLS:
        saves.watch_call(name)
    CheckpointStore.save = saves.watch(CheckpointStore.save)  # type: ignore[method-assign]
    artifact.seal = saves.watch(artifact.seal)
    shards.write_shard = saves.watch(shards.write_shard)
    storage.write_durably = saves.watch(storage.write_durably)
    vars(attempt)["write_durably"] = storage.write_durably
    if path := os.environ.get("FAULT_SAVES"):
        atexit.register(lambda: Path(path).write_text(str(saves.number), encoding="utf-8"))


def main(argv: list[str]) -> None:
    """Run the command line; `faults.warm` has put `argv` into sys.argv."""
    arm()
    cli.main()
