"""Training loss and learning rate inside the epochs: a few hundred points of each phase, for plots."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CURVE = "curve.csv"
POINTS_PER_PHASE = 200
"""More than a plot of a page's width can show."""
FIELDS = ("phase", "epoch", "train_loss", "lr")

Point = dict[str, Any]


class Curve:
    """Mean loss of every few steps, and the learning rate of the last of them.

    A point is {"phase": name, "epoch": epochs of the stage that are done, with the part of the current one,
    "train_loss", "lr": of the last layer group}. Every step counts, so an interrupted training goes on with
    `state` and ends with the same points.
    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._phase = -1
        self._sum, self._steps = 0.0, 0
        """Of the point that is not full yet."""

    def add(self, phase: int, name: str, *, step: int, steps: int, epoch: float, loss: float, lr: float) -> None:
        """Take in step number `step`, from 1, of the `steps` of phase number `phase`; a loss of NaN is left out."""
        if phase != self._phase:
            self._phase, self._sum, self._steps = phase, 0.0, 0
        if math.isfinite(loss):
            self._sum += loss
            self._steps += 1
        if self._steps and (step % -(-steps // POINTS_PER_PHASE) == 0 or step == steps):
            point = {"phase": name, "epoch": epoch, "train_loss": self._sum / self._steps, "lr": lr}
            self.points.append(point)
            self._sum, self._steps = 0.0, 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"points": self.points, "phase": self._phase, "sum": self._sum, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.points[:] = state["points"]
        self._phase, self._sum, self._steps = state["phase"], state["sum"], state["steps"]


def write_curve(points: Sequence[Point], folder: Path) -> None:
    """Write curve.csv; every number in full, so that reading gives the same points."""
    with (folder / CURVE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(points)


def read_curve(path: Path) -> list[Point]:
    """The points of a curve.csv file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            {"phase": row["phase"], **{name: float(row[name]) for name in FIELDS[1:]}} for row in csv.DictReader(stream)
        ]
