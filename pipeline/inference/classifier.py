"""The ULMFiT classifier as it is used: plain encoder, concat pooling and the head.

It gives what fastai's SentenceEncoder, masked_concat_pool and PoolingLinearClassifier give in eval mode for the
document alone, for documents of any length in any company, in memory that does not grow with their length. One thing
differs: xxpad in a text is a token like any other here, where fastai takes it for padding and may skip what follows.
Shapes: B documents, T tokens of a step, D embedding size, C classes.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.inference.encoder import Encoder, State, fill, first_rows, load_encoder
from pipeline.inference.ragged import Lengths, Step, plan_steps
from pipeline.model.architecture import Architecture, HeadShape

Rows = Sequence[NDArray[Any]]
"""Ids of documents, in the order in which the model reads them; none is empty."""


class Classifier(nn.Module):
    """Encoder, pooling and head. The encoder may be of lower precision; pooling and head are float32."""

    def __init__(self, encoder: Encoder, head: nn.Sequential, shape: HeadShape) -> None:
        super().__init__()
        self.encoder, self.head, self.shape = encoder, head, shape

    def forward(self, rows: Rows, step_tokens: int, between_steps: Callable[[], None] = lambda: None) -> Tensor:
        """Logits [B, C], float32, of `rows`, longest first, read in steps of at most `step_tokens` tokens.

        `between_steps` is called before each step and may end the work by an exception.
        """
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        tokens, begins = np.concatenate(rows), np.cumsum(lengths) - lengths
        pool = _ConcatPool(lengths, pooled_from(lengths, self.shape), self.encoder.embedding.weight)
        state: State | None = None
        for step in plan_steps(lengths, step_tokens):
            between_steps()
            within = np.minimum(np.arange(step.start, step.stop), lengths[: step.rows, None] - 1)
            ids = torch.from_numpy(tokens[begins[: step.rows, None] + within].astype(np.int64))
            output, state = self.encoder(
                ids.to(pool.last.device), first_rows(state, step.rows) if state is not None else None
            )
            pool.add(step, output)
        logits: Tensor = self.head(pool.features())
        return logits


def pooled_from(lengths: Lengths, shape: HeadShape) -> Lengths:
    """Where the pooled tokens of documents begin: all before are only read.

    The trained model keeps whole chunks of `seq_len` tokens, as many as fit into `max_len`, counted from the end of
    the padded batch. As every document is padded to whole chunks there, that is the same in any company. (With
    `max_len` below `seq_len` it can read no document longer than `max_len`; one chunk is pooled then.)
    """
    chunks = -(-lengths // shape.seq_len)
    kept = max(shape.max_len // shape.seq_len, 1)
    return np.maximum(chunks - kept, 0) * shape.seq_len


class _ConcatPool:
    """[last, max, mean] of encoder outputs, step by step (ULMFiT sec. 3.3)."""

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


def load_classifier(folder: Path, dtype: torch.dtype, device: torch.device) -> Classifier:
    """The classifier in `folder`, ready for use: its encoder converted to `dtype` once, all on `device`.

    Raises InputError, naming the first, for a tensor that does not fit the architecture.
    """
    architecture, shape = Architecture.load(folder / "architecture.json"), HeadShape.load(folder / "head.json")
    with torch.device("meta"):
        head = build_head(3 * architecture.emb_sz, shape)
    fill(head, folder / "head.safetensors")
    model = Classifier(load_encoder(folder).to(device, dtype), head.to(device), shape)
    return model.eval().requires_grad_(False)


def build_head(n_features: int, shape: HeadShape) -> nn.Sequential:
    """fastai's LinBnDrop layers without their dropout; the names are those of head.safetensors."""
    sizes = [n_features, *shape.lin_ftrs, shape.n_classes]
    layers: list[nn.Module] = []
    for number, (n_in, n_out) in enumerate(pairwise(sizes), 1):
        parts: dict[str, nn.Module] = {"norm": nn.BatchNorm1d(n_in), "linear": nn.Linear(n_in, n_out, bias=False)}
        if number < len(sizes) - 1:
            parts["activation"] = nn.ReLU()
        layers.append(nn.Sequential(OrderedDict(parts)))
    return nn.Sequential(*layers)
