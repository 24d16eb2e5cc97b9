"""Batches straight from memory-mapped ids: no per-document files, no padding in language-model streams.

The order of the data is a pure function of seed and epoch, and any batch can be asked for by its number.
Shapes: B rows of a batch, T tokens of a step.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError
from pipeline.model.architecture import PAD_ID

Batch = tuple[Tensor, Tensor]


class Documents(Protocol):
    """Documents as ids; `pipeline.text.ids.IdStore` is one."""

    @property
    def ids(self) -> NDArray[Any]:
        """All ids of all documents, concatenated."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each document starts in `ids`, and the end of the last one."""


_LENGTHS = 1
"""Tells the random numbers of lengths from those of the order of documents."""


class LanguageModelLoader:
    """The batches of fastai's LMDataLoader: documents in a row, cut into B streams that go on from batch to batch.

    x [B, T] and y [B, T] are one token apart. With `groups` above 1 there are groups * B streams, and each step of
    them comes as that many batches: the first B streams, the next B, ... (gradient accumulation). The last batch of
    an epoch may be shorter; up to one token less than there are streams is left out at the end of the text. With
    `backwards` every document is read from its end; with `random_lengths` steps have lengths around `seq_len`, a
    function of seed and epoch too, and `len` is that of the current `epoch`.
    """

    n_inp = 1

    def __init__(
        self,
        documents: Documents,
        chosen: NDArray[np.int64],
        *,
        bs: int,
        seq_len: int,
        seed: int | None = None,
        backwards: bool = False,
        groups: int = 1,
        random_lengths: bool = False,
        part: slice = slice(None),
    ) -> None:
        """Read the documents with the indices `chosen`; `seed` None keeps their order in every epoch.

        `part` are the rows of each batch that this process gets, where several share them. Raises DataError if there
        are too few tokens for groups * `bs` streams.
        """
        self.bs, self.seq_len, self.epoch = bs, seq_len, 0
        self.random_lengths = random_lengths
        self._groups, streams = groups, groups * bs
        self._rows = np.arange(bs, dtype=np.int64)[part]
        self._ids, self._seed, self._backwards = documents.ids, seed, backwards
        self._drawn: tuple[int, NDArray[np.int64]] | None = None
        self._starts = documents.offsets[chosen]
        self._lengths = documents.offsets[chosen + 1] - self._starts
        self.n_tokens = int(self._lengths.sum())
        self.stream_length = max(self.n_tokens - 1, 0) // streams
        if self.stream_length == 0:
            raise DataError(
                f"{self.n_tokens} tokens are too few for {streams} streams.", "Lower finetune_lm.bs with --set."
            )

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._step_starts(self.epoch)) * self._groups

    @property
    def predicted_tokens(self) -> int:
        """Tokens that are predicted in an epoch."""
        return self.stream_length * self.bs * self._groups

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Positions in `chosen` in the order in which `epoch` reads them."""
        if self._seed is None:
            return np.arange(len(self._lengths))
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._lengths))

    def _step_starts(self, epoch: int) -> NDArray[np.int64]:
        """Where in the streams each step of `epoch` begins."""
        if not self.random_lengths:
            return np.arange(0, self.stream_length, self.seq_len, dtype=np.int64)
        if self._drawn is None or self._drawn[0] != epoch:
            rng = np.random.default_rng([self._seed or 0, epoch, _LENGTHS])
            self._drawn = epoch, random_step_starts(self.stream_length, self.seq_len, rng)
        return self._drawn[1]

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `first` on."""
        order, step_starts = self.order(epoch), self._step_starts(epoch)
        lengths, starts = self._lengths[order], self._starts[order]
        ends = np.cumsum(lengths)
        for number in range(first, len(step_starts) * self._groups):
            step, group = divmod(number, self._groups)
            row_starts = (group * self.bs + self._rows) * self.stream_length
            end = step_starts[step + 1] if step + 1 < len(step_starts) else self.stream_length
            positions = row_starts[:, None] + np.arange(step_starts[step], end + 1)
            document = np.searchsorted(ends, positions, side="right")
            to_end = ends[document] - positions
            within = to_end - 1 if self._backwards else lengths[document] - to_end
            rows = torch.from_numpy(self._ids[starts[document] + within].astype(np.int64))
            yield rows[:, :-1], rows[:, 1:]

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the current `epoch`."""
        return self.batches(self.epoch)

    def to(self, device: torch.device) -> "LanguageModelLoader":
        """fastai's Learner moves each batch itself."""
        return self


def random_step_starts(stream_length: int, seq_len: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Where steps of random length begin that cover `stream_length` tokens (AWD-LSTM sec. 5).

    95 % of the lengths come from a normal distribution around `seq_len`, the others from one around half of it; both
    have a standard deviation of 5. As in the authors' code none is below 5 (what would be left at the end joins the
    last step); none is above seq_len + 20 either, so that the memory which a step needs is bounded.
    """
    shortest, longest = min(5, seq_len), seq_len + 15
    n = stream_length // shortest + 1
    centres = np.where(rng.random(n) < 0.95, seq_len, seq_len / 2)
    lengths = np.clip(rng.normal(centres, 5.0).astype(np.int64), shortest, longest)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return starts[(starts == 0) | (starts <= stream_length - shortest)]


class ClassifierLoader:
    """Whole documents of similar length together, as fastai's SortedDL and Pad_Chunk make them.

    x [B, T] is padded for `SentenceEncoder` and sorted by length, longest first; y [B] holds label ids. With a seed
    the batches are shuffled and the longest comes first, so that a batch too big for memory shows at once; without,
    documents run from long to short and `document_order` tells which is where. Where several processes share a batch,
    x are the rows of `part`, padded as in the whole batch, and y those of all.
    """

    n_inp = 1
    random_lengths = False

    def __init__(
        self,
        documents: Documents,
        chosen: NDArray[np.int64],
        labels: NDArray[np.integer[Any]],
        *,
        bs: int,
        seq_len: int,
        seed: int | None = None,
        backwards: bool = False,
        part: slice = slice(None),
    ) -> None:
        """Read the documents with the indices `chosen`; `labels` are those of all documents."""
        self._part = part
        self.bs, self.seq_len, self.epoch = bs, seq_len, 0
        self._documents, self._chosen, self._labels = documents, chosen, labels
        self._seed, self._backwards = seed, backwards
        self._lengths = documents.offsets[chosen + 1] - documents.offsets[chosen]

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._cut(np.arange(len(self._chosen))))

    def document_order(self, epoch: int = 0) -> list[NDArray[np.int64]]:
        """Positions in `chosen`, batch by batch, each from long to short."""
        by_length = np.argsort(-self._lengths, kind="stable")
        if self._seed is None:
            return self._cut(by_length)
        rng = np.random.default_rng([self._seed, epoch])
        shuffled = self.drawn(rng)
        pool = self.bs * 50  # as SortedDL: sorted within pools, so that batches differ from epoch to epoch
        pools = [shuffled[i : i + pool] for i in range(0, len(shuffled), pool)]
        in_pools = np.concatenate([p[np.argsort(-self._lengths[p], kind="stable")] for p in pools])
        batches = self._cut(in_pools)
        longest = max(range(len(batches)), key=lambda i: int(self._lengths[batches[i]].max()))
        rest = [i for i in rng.permutation(len(batches)) if i != longest]
        order = [batches[i] for i in (longest, *rest)]
        return [batch[np.argsort(-self._lengths[batch], kind="stable")] for batch in order]

    def drawn(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions in `chosen` that a shuffled epoch reads, as many as there are: each once."""
        return rng.permutation(len(self._chosen))

    def _cut(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        batches = [order[i : i + self.bs] for i in range(0, len(order), self.bs)]
        if len(batches) > 1 and len(batches[-1]) == 1:  # batch norm cannot train on a single row
            batches[-2:] = [np.concatenate(batches[-2:])]
        return batches

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the current `epoch`."""
        return self.batches(self.epoch)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `first` on."""
        offsets, ids = self._documents.offsets, self._documents.ids
        step = -1 if self._backwards else 1
        for batch in self.document_order(epoch)[first:]:
            indices = self._chosen[batch]
            rows = [ids[offsets[i] : offsets[i + 1]][::step] for i in indices]
            labels = torch.from_numpy(self._labels[indices].astype(np.int64))
            yield pad_documents(rows, self.seq_len)[self._part], labels

    def to(self, device: torch.device) -> "ClassifierLoader":
        """fastai's Learner moves each batch itself."""
        return self


def pad_documents(rows: list[NDArray[Any]], seq_len: int) -> Tensor:
    """Pad to the longest row, [B, T]: whole chunks of `seq_len` in front, the rest behind (fastai's Pad_Chunk).

    A short document then starts at a chunk's beginning, and chunks in front of it are skipped by the encoder. Unlike
    Pad_Chunk, more than one chunk is filled up to whole chunks: the encoder takes rows that have begun for the first
    rows of the batch, which otherwise fails for rows that end before the last chunk, and short ones are never read.
    """
    longest = max(len(row) for row in rows)
    if longest > seq_len:
        longest = (longest + seq_len - 1) // seq_len * seq_len
    padded = np.full((len(rows), longest), PAD_ID, dtype=np.int64)
    for i, row in enumerate(rows):
        front = (longest - len(row)) // seq_len * seq_len
        padded[i, front : front + len(row)] = row
    return torch.from_numpy(padded)
