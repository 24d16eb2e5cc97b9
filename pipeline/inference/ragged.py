"""Reading documents of many lengths together without reading padding.

Documents lie side by side, longest first, all beginning at the left. They are read in steps; a document that has
ended leaves the batch. A step ends early where rows that have ended in it would cost more than another step does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]
WASTE_TOKENS = 64
"""Tokens read beyond the ends of rows, in one step. oneDNN lays the weights out anew for each call of an LSTM layer:
5.5 ms for 1152 x 1152 in bfloat16, as long as 50 tokens take (measured, one core)."""


@dataclass(frozen=True)
class Step:
    """Tokens `start` to `stop` of the first `rows` documents."""

    start: int
    stop: int
    rows: int


def plan_steps(lengths: Lengths, step_tokens: int) -> Iterator[Step]:
    """Steps of at most `step_tokens` tokens, or one of each row, that read documents of `lengths`, longest first."""
    start = 0
    while start < lengths[0]:
        rows = int(np.searchsorted(-lengths, -start))
        width = min(max(step_tokens // rows, 1), int(lengths[0]) - start)
        stops = start + 1 + np.arange(width)
        waste = np.maximum(stops[:, None] - lengths[None, :rows], 0).sum(axis=1)
        # The last row to end is read to its end whatever the others waste: a width of one wastes nothing.
        stop = int(stops[np.searchsorted(waste, WASTE_TOKENS, side="right") - 1])
        yield Step(start, stop, rows)
        start = stop


def plan_batches(lengths: Lengths, bs: int, step_tokens: int) -> list[NDArray[np.int64]]:
    """Positions in `lengths`, batch by batch, each from long to short, equals in their order.

    A batch has `bs` documents, or more short ones: as many as can be read in one step of `step_tokens`.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    at = 0
    while at < len(order):
        rows = max(bs, step_tokens // int(lengths[order[at]]))
        batches.append(order[at : at + rows])
        at += rows
    return batches
