"""The parent's side: children for the sides of a case, told in turn to do one repeat each."""

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.benchmark.cases import DISTILBERT, FASTAI, MATMUL, Case
from pipeline.benchmark.child import run_side
from pipeline.benchmark.sizes import Sizes
from pipeline.benchmark.turns import END, GO, Work
from pipeline.progress import Reporter

PRELOADED = ["pipeline.benchmark.preloaded"]
"""Imported once in a hurry, for children that are then forked."""
MAY_SHARE = ("prepare", MATMUL, DISTILBERT, FASTAI)
"""Sides that may start from it: they import fastai anyway, or are not compared. Ours are measured as they are."""
END_S = 20.0


class CaseFailed(Exception):
    """A case that could not be measured; the others go on."""


@dataclass
class Repeats:
    """What one side reported."""

    facts: dict[str, Any]
    units: list[float] = field(default_factory=list)
    """Of each repeat."""
    seconds: list[list[float]] = field(default_factory=list)
    """Of each repeat, one figure or several."""
    more: list[dict[str, Any]] = field(default_factory=list)
    peak_mb: float = 0.0


class Lab:
    """A temporary folder, the sizes, and the data that cases share."""

    def __init__(self, folder: Path, sizes: Sizes, source: Path | None, reporter: Reporter) -> None:
        self.folder, self.sizes, self.source, self.reporter = folder, sizes, source, reporter
        self._once: dict[str, Any] = {}
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(PRELOADED)

    @classmethod
    @contextmanager
    def open(cls, sizes: Sizes, source: Path | None, reporter: Reporter) -> Iterator["Lab"]:
        """A laboratory whose folder is removed at the end."""
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            yield cls(Path(name), sizes, source, reporter)

    def once(self, key: str, make: Any) -> Any:
        """What `make` returns, called for the first of all that ask with the same `key`."""
        if key not in self._once:
            self._once[key] = make()
        return self._once[key]

    def measure(self, case: Case, sides: Mapping[str, str], repeats: int, own: Mapping[str, Any]) -> dict[str, Repeats]:
        """Warm all `sides`, then let each do `repeats` repeats in turn. `own` are parameters of single sides.

        Raises CaseFailed if a child reports an error or ends.
        """
        self.once(f"prepare {case.shared}", lambda: self._prepare(case))
        self.reporter.line(f"{case.name}: warming {', '.join(sides)}")
        with ExitStack() as stack:
            children = {
                side: stack.enter_context(self._child(case, side, function, own.get(side, {})))
                for side, function in sides.items()
            }
            for child in children.values():
                child.receive()
            # One after the other: threads of two processes on the same cores wait for each other by spinning.
            found = {side: Repeats(child.turn()) for side, child in children.items()}
            for number in range(1, repeats + 1):
                for side, child in children.items():
                    report = child.turn()
                    found[side].units.append(report.pop("units"))
                    found[side].seconds.append(report.pop("seconds"))
                    found[side].more.append(report)
                told = ", ".join(f"{side} {sum(f.seconds[-1]):.3g} s" for side, f in found.items())
                self.reporter.line(f"{case.name}: repeat {number} of {repeats}: {told}")
            for side, child in children.items():
                found[side].peak_mb = child.end()
        return found

    def _prepare(self, case: Case) -> None:
        self.reporter.line(f"{case.name}: making its data")
        with self._child(case, "prepare", case.prepare, {}) as child:
            child.receive()
            child.turn()
            child.end()

    @contextmanager
    def _child(self, case: Case, side: str, function: str, parameters: Mapping[str, Any]) -> Iterator["Child"]:
        """A child that is gone, with its folder, at the end."""
        own = self.folder / f"{case.name}-{side}"
        shared = self.folder / case.shared
        for folder in (own, shared):
            folder.mkdir(exist_ok=True)
        work = Work(
            shared, own, self.sizes, {**case.parameters, **parameters}, self.source if case.reads_source else None
        )
        fork = self.sizes.forks and (case.alike or side in MAY_SHARE)
        context = self._forks if fork else multiprocessing.get_context("spawn")
        child = Child(side, context, function, work, own.with_suffix(".log"))
        try:
            yield child
        finally:
            child.kill()
            shutil.rmtree(own, ignore_errors=True)


class Child:
    """A process that runs one side."""

    def __init__(self, side: str, context: Any, function: str, work: Work, log: Path) -> None:
        self._side, self._log = side, log
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=run_side, args=(function, work, theirs, log))
        self._process.start()
        theirs.close()

    def receive(self) -> dict[str, Any]:
        """The next message; CaseFailed if it is an error, or if the child is gone."""
        try:
            message: dict[str, Any] = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(END_S)
            said = self._log.read_text("utf-8", "replace").strip().splitlines() if self._log.exists() else []
            last = f": {said[-1]}" if said else ""
            raise CaseFailed(f"{self._side} ended with code {self._process.exitcode}{last}") from None
        if "error" in message:
            raise CaseFailed(f"{self._side}: {message['error']}")
        return message

    def turn(self) -> dict[str, Any]:
        """To warm up, or one repeat."""
        self._connection.send(GO)
        return self.receive()

    def end(self) -> float:
        """No more repeats; the child's peak memory in MB."""
        self._connection.send(END)
        return float(self.receive()["peak_mb"])

    def kill(self) -> None:
        """End the process, however far it is."""
        self._connection.close()
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(END_S)
        if self._process.is_alive():
            self._process.kill()
        self._process.join(END_S)


def sides_at_hand(case: Case, sizes: Sizes) -> dict[str, str]:
    """The sides of `case` that `sizes` want and whose packages are installed."""
    with_distilbert = bool(sizes.distilbert_share and find_spec("transformers"))
    return {side: name for side, name in case.sides.items() if side != DISTILBERT or with_distilbert}
