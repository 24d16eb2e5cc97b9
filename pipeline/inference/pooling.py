"""Documents of any length and company as one vector each: concat pooling of encoder outputs (ULMFiT sec. 3.3).

Memory does not grow with the length of documents. Shapes: B documents, T tokens of a step, D embedding size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.inference.encoder import Encoder, State, first_rows
from pipeline.inference.ragged import Lengths, Step, plan_steps

Rows = Sequence[NDArray[Any]]
"""Ids of documents, in the order in which the model reads them; none is empty."""


def concat_pooled(
    encoder: Encoder, rows: Rows, starts: Lengths, step_tokens: int, between_steps: Callable[[], None]
) -> Tensor:
    """[last, max, mean] of each document, [B, 3 D], float32, from its token `starts` on.

    `rows` are read longest first, in steps of at most `step_tokens` tokens. `between_steps` is called before each step
    and may end the work by an exception.
    """
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    tokens, begins = np.concatenate(rows), np.cumsum(lengths) - lengths
    pool = _ConcatPool(lengths, starts, encoder.embedding.weight)
    state: State | None = None
    for step in plan_steps(lengths, step_tokens):
        between_steps()
        within = np.minimum(np.arange(step.start, step.stop), lengths[: step.rows, None] - 1)
        ids = torch.from_numpy(tokens[begins[: step.rows, None] + within].astype(np.int64))
        output, state = encoder(
            ids.to(pool.last.device), first_rows(state, step.rows) if state is not None else None
        )
        pool.add(step, output)
    return pool.features()


class _ConcatPool:
    """[last, max, mean] of encoder outputs, step by step."""

    def __init__(self, lengths: Lengths, starts: Lengths, weight: Tensor) -> None:
        self._lengths, self._starts, self._dtype = lengths, starts, weight.dtype
        shape = (len(lengths), weight.shape[1])
        self.last = torch.zeros(shape, dtype=torch.float32, device=weight.device)
        self._max = torch.full_like(self.last, -torch.inf)
        self._sum = torch.zeros_like(self.last)

    def add(self, step: Step, output: Tensor) -> None:
        """Take in the outputs [B, T, D] of a step."""
        if output.dtype != self._dtype:
            raise RuntimeError(f"{self._dtype} was asked for, the encoder put out {output.dtype}")
        rows, width = step.rows, step.stop - step.start
        lengths = self._lengths[:rows]
        first, end = np.maximum(self._starts[:rows] - step.start, 0), np.minimum(lengths - step.start, width)
        ending = np.flatnonzero(lengths <= step.stop)
        self.last[ending] = output[ending, end[ending] - 1].float()
        if (first >= end).all():
            return
        summed = output
        if first.any() or (end < width).any():
            at = np.arange(width)
            outside = torch.from_numpy((at < first[:, None]) | (at >= end[:, None])).to(output.device)[:, :, None]
            summed = output.masked_fill(outside, 0)
            output = output.masked_fill(outside, -torch.inf)
        self._sum[:rows] += summed.sum(dim=1, dtype=torch.float32)
        self._max[:rows] = torch.maximum(self._max[:rows], output.amax(dim=1).float())

    def features(self) -> Tensor:
        """[B, 3 D], after the last step."""
        counts = torch.from_numpy(self._lengths - self._starts).to(self._sum)
        return torch.cat([self.last, self._max, self._sum / counts[:, None]], dim=1)
