"""Batches of a running text as the notes cut it: into whole steps, read with or without memory of the step before.

The notes cut the whole text into steps and then split it, so that the steps of validation go on where those of
training would. On Human Numbers this matters: a thousand of numbers has 6,510 words, a multiple of three, so that
whatever reads three words at a time sees each word of a thousand at one and the same place of a step.
Shapes: N tokens of a text, B rows of a batch, T tokens of a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.ladder.rungs import LanguageModelSettings
from pipeline.text.ids import IdStore
from pipeline.training.loaders import Batch, LanguageModelLoader


@dataclass(frozen=True)
class RunningText:
    """A text as the one document of a loader."""

    ids: NDArray[np.integer[Any]]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Beginning and end."""
        return np.array([0, len(self.ids)], dtype=np.int64)


class StreamLoader(LanguageModelLoader):
    """B streams of whole steps, whose state goes on from batch to batch: x [B, T], y [B, T] or, `last`, [B, 1]."""

    def __init__(self, text: NDArray[np.integer[Any]], settings: LanguageModelSettings) -> None:
        """Read `text` [N], in fewer streams if it is short. Raises DataError if it has no step."""
        _require(text, settings)
        bs = min(settings.bs, (len(text) - 1) // settings.seq_len)
        super().__init__(RunningText(text), np.array([0]), bs=bs, seq_len=settings.seq_len)
        self.stream_length -= self.stream_length % self.seq_len
        self._last = settings.predicts == "last"

    @property
    def predicted_tokens(self) -> int:
        """Tokens that are predicted in an epoch."""
        return len(self) * self.bs * (1 if self._last else self.seq_len)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `first` on."""
        for x, y in super().batches(epoch, first):
            yield x, y[:, -1:] if self._last else y


class WindowLoader:
    """Windows that begin `stride` apart, read without memory: x [B, T], y [B, T] or, `last`, [B, 1].

    Shuffled if there is a seed; with settings.shift the first window then begins at another token in each epoch.
    """

    n_inp = 1
    random_lengths = False

    def __init__(
        self, text: NDArray[np.integer[Any]], settings: LanguageModelSettings, seed: int | None = None
    ) -> None:
        """Read `text` [N]. Raises DataError if it has no window."""
        _require(text, settings)
        assert settings.stride is not None
        self.bs, self.seq_len, self.epoch = settings.bs, settings.seq_len, 0
        self._text, self._seed, self._last = text, seed, settings.predicts == "last"
        room = len(text) - self.seq_len
        self._shifts = min(settings.stride, room) if settings.shift and seed is not None else 1
        self._starts = np.arange(0, room - (self._shifts - 1), settings.stride, dtype=np.int64)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return (len(self._starts) + self.bs - 1) // self.bs

    @property
    def predicted_tokens(self) -> int:
        """Tokens that are predicted in an epoch."""
        return len(self._starts) * (1 if self._last else self.seq_len)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `first` on."""
        starts = self._starts
        if self._seed is not None:
            starts = starts[np.random.default_rng([self._seed, epoch]).permutation(len(starts))] + epoch % self._shifts
        for at in range(first * self.bs, len(starts), self.bs):
            positions = starts[at : at + self.bs, None] + np.arange(self.seq_len + 1)
            rows = torch.from_numpy(self._text[positions].astype(np.int64))
            yield rows[:, :-1], rows[:, -1:] if self._last else rows[:, 1:]

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the current `epoch`."""
        return self.batches(self.epoch)

    def to(self, device: torch.device) -> "WindowLoader":
        """fastai's Learner moves each batch itself."""
        return self


def texts_of(store: IdStore) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """The running text of training and of validation, without the mark that begins it, which is nothing to predict.

    A split's documents lie one after the other in the ids, unlabelled ones behind those of train.
    """
    parts = (store.documents("train", "unlabelled"), store.documents("valid"))
    if not all(map(len, parts)):
        raise DataError(
            "There is no validation text.",
            "Set prepare_corpus.valid_fraction above 0 with --force; if it is, there is too little text to split.",
        )
    train, valid = (store.ids[store.offsets[part[0]] + 1 : store.offsets[part[-1] + 1]] for part in parts)
    return train, valid


def loaders(
    store: IdStore, settings: LanguageModelSettings, seed: int
) -> tuple[StreamLoader | WindowLoader, StreamLoader | WindowLoader]:
    """Training and validation text as a rung reads it; DataError if there is too little."""
    train, valid = texts_of(store)
    grid = settings.stride or settings.seq_len
    valid = valid[-len(train) % grid :]
    if settings.stride is None:
        return StreamLoader(train, settings), StreamLoader(valid, settings)
    after_windows = {"stride": 1, "predicts": "last"} if settings.scored == "after windows" else {}
    return (
        WindowLoader(train, settings, seed if settings.shuffle else None),
        WindowLoader(valid, settings.model_copy(update=after_windows)),
    )


def _require(text: NDArray[np.integer[Any]], settings: LanguageModelSettings) -> None:
    if len(text) <= settings.seq_len:
        raise DataError(
            f"A text of {len(text)} tokens has no step of {settings.seq_len} tokens and one more to predict.",
            "Take a longer text, or a larger prepare_corpus.valid_fraction with --force.",
        )
