"""Several processes that make one result: which of them this is, and what rank 0 says to the others.

A launcher (torchrun, srun) starts the same command in every process. Rank 0 carries it out; where a stage trains it
gives an order to the others, which train along and write nothing. They speak through torch's key-value store; the
collectives of training are in `pipeline.training.group`. One process is alone: nothing here then does anything.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from pipeline import stopping
from pipeline.errors import ExitCode, LostRankError, PipelineError, UsageError

POLL_S = 0.2
FAREWELL_S = 10.0
"""How long rank 0 waits for the others to have heard how it ended."""
ROLL_CALL_S = 3.0
"""How long those that are left have to answer rank 0; the others give it three times as long to say how it ends."""
GO_ON = "The same command goes on from the last checkpoint."


class Dismissed(Exception):
    """Rank 0 has ended, with this exit code."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(exit_code)


class RankFailedError(Exception):
    """A defect of the program showed in another process."""


class Ranks:
    """This process, `rank` of `size`, and number `local` on its machine."""

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0) -> None:
        self.rank, self.size, self.local = rank, size, local
        self._root: Any = None
        self._store: Any = None
        self._orders = self._gone = 0
        self._owner = os.getpid()
        self._looked_at = 0.0

    @property
    def first(self) -> bool:
        """True for the one process that talks and writes."""
        return self.rank == 0

    def connect(self) -> None:
        """Meet the others at the store that the launcher or rank 0 keeps. Imports torch."""
        from datetime import timedelta

        from torch.distributed.rendezvous import rendezvous

        try:
            self._root, _, _ = next(iter(rendezvous("env://", self.rank, self.size, timeout=timedelta(minutes=10))))
        except ValueError as error:
            raise UsageError(f"The processes cannot meet: {error}.", "Start them with torchrun.") from error
        except RuntimeError as error:
            raise LostRankError(f"Rank {self.rank} of {self.size} met no rank 0.", "Start all of them anew.") from error
        self._store = self.store("pipeline")
        if self.first:
            stopping.listen_to(self._stop_elsewhere)

    def store(self, name: str) -> Any:
        """A part of the store for others to use."""
        from torch._C._distributed_c10d import PrefixStore

        return PrefixStore(name, self._root)

    def give(self, stage: str, context: Any) -> None:
        """Rank 0: have the others train along in `stage`; `context` is its StageContext."""
        if self.size > 1:
            self._orders += 1
            order = {
                "stage": stage, "recipe": context.recipe.model_dump(mode="json"), "fingerprint": context.fingerprint,
                "inputs": {slot: str(artifact.path.resolve()) for slot, artifact in context.inputs.items()},
                "work": str(context.work.resolve()), "resuming": context.resuming,
            }
            self._store.set(f"order/{self._orders}", json.dumps(order))

    def orders(self) -> Iterator[dict[str, Any]]:
        """The others: what rank 0 wants, one after the other. Raises Dismissed at the end."""
        while True:
            self._orders += 1
            key = f"order/{self._orders}"
            self._wait_for(key)
            yield json.loads(self._store.get(key))

    def assemble(self) -> None:
        """Wait until every rank has prepared the work of this order, for as long as that takes.

        Raises what a rank that could not prepare it ended with.
        """
        if self.size == 1:
            return
        n = self._orders
        if not self.first:
            self._store.set(f"ready/{n}/{self.rank}", "")
            self._wait_for(f"go/{n}")
            return
        keys = [f"ready/{n}/{rank}" for rank in range(1, self.size)]
        while not self._there(*keys):
            self._raise_failure()
            stopping.check("Waiting for the other processes")
            time.sleep(POLL_S)
        self._store.set(f"go/{n}", "")

    def fail(self, error: Exception) -> None:
        """Leave word of why this rank cannot go on."""
        what = f"{type(error).__name__}: {error}"
        note: dict[str, Any] = {"rank": self.rank, "exit_code": 1, "what": what, "mend": ""}
        if isinstance(error, PipelineError):
            note |= {"exit_code": int(error.exit_code), "what": error.what, "mend": error.mend}
        with contextlib.suppress(RuntimeError):  # rank 0, and with it the store, has ended too
            self._store.set("failed", json.dumps(note))

    def lost(self, timed_out_s: float | None = None) -> Exception:
        """What to raise when a collective failed: what the rank that is gone left word of, or that it is lost.

        Raises Dismissed if it was rank 0, which ended by itself.
        """
        try:
            self._store.set(f"here/{self.rank}", "")
            others = {rank: f"here/{rank}" for rank in range(self.size) if rank != self.rank}
            deadline = time.monotonic() + ROLL_CALL_S * (1 if self.first else 3)
            while time.monotonic() < deadline and not (self.first and self._there(*others.values())):
                self._check_dismissed()
                self._raise_failure()
                time.sleep(POLL_S)
            gone = [rank for rank, key in others.items() if not self._there(key)]
            self._gone = len(gone)
        except (PipelineError, RankFailedError) as error:
            return error
        except RuntimeError:  # the store has ended
            return LostRankError(f"{'The launcher' if self.first else 'Rank 0'} was lost.", GO_ON)
        names = ", ".join(map(str, gone)) or "unknown"
        after = "" if timed_out_s is None else f": it did not answer for {timed_out_s:g} seconds"
        return LostRankError(f"Rank {names} of {self.size} was lost{after}.", GO_ON)

    def dismiss(self, exit_code: int) -> None:
        """Rank 0: tell the others that and how it ended, and wait a little until they have heard it."""
        deadline = time.monotonic() + FAREWELL_S
        try:
            self._store.set("done", str(exit_code))
            while self._store.add("heard", 0) < self.size - 1 - self._gone and time.monotonic() < deadline:
                time.sleep(POLL_S)
        except RuntimeError:  # the launcher, and with it the store, has ended before us
            return

    def _wait_for(self, key: str) -> None:
        told = False
        while not self._there(key):
            self._check_dismissed()
            reason = stopping.asked()
            if reason is not None and not told:
                self._store.set("stop", f"{reason} to rank {self.rank}")
                told = True
            time.sleep(POLL_S)

    def _there(self, *keys: str) -> bool:
        try:
            return self._store.check(list(keys))
        except RuntimeError as error:
            raise LostRankError(f"{'The launcher' if self.first else 'Rank 0'} was lost.", GO_ON) from error

    def _check_dismissed(self) -> None:
        if not self.first and self._there("done"):
            code = int(self._store.get("done"))
            self._store.add("heard", 1)
            raise Dismissed(code)

    def _raise_failure(self) -> None:
        if self._there("failed"):
            note = json.loads(self._store.get("failed"))
            if note["exit_code"] not in set(ExitCode):
                raise RankFailedError(f"Rank {note['rank']} failed: {note['what']} (its traceback is above)")
            error = PipelineError(f"Rank {note['rank']}: {note['what']}", note["mend"])
            error.exit_code = ExitCode(note["exit_code"])
            raise error

    def _stop_elsewhere(self) -> str | None:
        """The signal that another rank got; asked for in every loop, looked for now and then."""
        now = time.monotonic()
        if now - self._looked_at < POLL_S or os.getpid() != self._owner:
            return None
        self._looked_at = now
        try:
            return self._store.get("stop").decode() if self._store.check(["stop"]) else None
        except RuntimeError:  # the store has ended, and with it the launcher: its signal is on the way
            return None


ALONE = Ranks()
_here = ALONE


def here() -> Ranks:
    """This process among those of its job."""
    return _here


def join() -> Ranks:
    """Find out from the environment who this process is, and meet the others if there are any.

    RANK and WORLD_SIZE are taken out of it: where fastai finds them it gathers losses by itself, and worker processes
    would take themselves for ranks. Raises UsageError if they make no sense.
    """
    global _here  # noqa: PLW0603
    given = {name: os.environ.pop(name, None) for name in ("RANK", "WORLD_SIZE")}
    if given["RANK"] is None or given["WORLD_SIZE"] is None:
        return _here
    try:
        rank, size = int(given["RANK"]), int(given["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", rank))
    except ValueError:
        rank, size, local = 0, 0, 0
    if not 0 <= rank < size:
        said = ", ".join(f"{name} is {value!r}" for name, value in given.items())
        raise UsageError(f"The environment names no process of a job: {said}.", "Unset them, or use torchrun.")
    if size > 1:
        _here = Ranks(rank, size, local)
        _here.connect()
    return _here
