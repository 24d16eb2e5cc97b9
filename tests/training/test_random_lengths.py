"""Steps of random length: every token once, any batch by its number, rates in proportion, exact resume."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from documents import random_documents
from fastai.learner import Callback
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_training import LM, StopAt, same, train

from pipeline import stopping
from pipeline.errors import Stopped
from pipeline.training.loaders import LanguageModelLoader, random_step_starts
from pipeline.training.schedules import Schedule
from pipeline.training_settings import Phase

RANDOM_LM = LM.model_copy(update={"random_seq_len": True})


@pytest.fixture(autouse=True)
def _no_request_left() -> Iterator[None]:
    yield
    stopping.forget()


def lengths_of(starts: np.ndarray, stream_length: int) -> np.ndarray:
    return np.diff(np.append(starts, stream_length))


def test_lengths_are_distributed_as_published() -> None:
    starts = random_step_starts(1_000_000, 70, np.random.default_rng(0))
    lengths = lengths_of(starts, 1_000_000)
    assert lengths.sum() == 1_000_000
    around_half = lengths < 52
    assert around_half.mean() == pytest.approx(0.05, abs=0.005)
    assert lengths[~around_half].mean() == pytest.approx(69.5, abs=0.2)  # whole tokens: rounded down
    assert lengths[~around_half].std() == pytest.approx(5, abs=0.2)
    assert lengths[around_half].mean() == pytest.approx(34.5, abs=0.5)
    assert lengths.max() <= 90


@hypothesis_settings(max_examples=40)
@given(
    n_tokens=st.integers(30, 900), bs=st.integers(1, 4), groups=st.integers(1, 3), seq_len=st.integers(2, 30),
    epoch=st.integers(0, 3),
)
def test_every_token_comes_once_in_the_order_of_fixed_steps(
    n_tokens: int, bs: int, groups: int, seq_len: int, epoch: int
) -> None:
    documents = random_documents([n_tokens // 3, n_tokens - n_tokens // 3])
    fixed, random = (
        LanguageModelLoader(
            documents, np.arange(2), bs=bs, seq_len=seq_len, seed=1, groups=groups, random_lengths=is_random
        )
        for is_random in (False, True)
    )
    assert random.predicted_tokens == fixed.predicted_tokens
    random.epoch = epoch
    batches = list(random)
    assert len(batches) == len(random)
    for group in range(groups):
        expected = list(fixed.batches(epoch))[group::groups]
        for part in (0, 1):
            ours = torch.cat([b[part] for b in batches[group::groups]], dim=1)
            assert torch.equal(ours, torch.cat([b[part] for b in expected], dim=1))
    shortest = min(5, seq_len, random.stream_length)
    assert all(shortest <= x.shape[1] <= seq_len + 20 for x, _ in batches)


def test_any_batch_can_be_asked_for_and_lengths_are_a_function_of_seed_and_epoch() -> None:
    documents = random_documents([300] * 5)
    loader, again = (
        LanguageModelLoader(documents, np.arange(5), bs=2, seq_len=20, seed=3, random_lengths=True) for _ in range(2)
    )
    every = list(loader.batches(epoch=2))
    list(again.batches(epoch=0))  # what was read before does not matter
    for first in (0, 7, len(every) - 1, len(every)):
        rest = list(again.batches(2, first))
        assert len(rest) == len(every) - first
        for (x, y), (all_x, all_y) in zip(rest, every[first:], strict=True):
            assert torch.equal(x, all_x)
            assert torch.equal(y, all_y)
    widths = [[x.shape[1] for x, _ in loader.batches(epoch)] for epoch in (0, 1)]
    assert widths[0] != widths[1]
    other = LanguageModelLoader(documents, np.arange(5), bs=2, seq_len=20, seed=4, random_lengths=True)
    assert widths[0] != [x.shape[1] for x, _ in other.batches(0)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_rate_follows_the_length(tmp_path: Path, accumulate: int) -> None:
    class Watch(Callback):
        order = Schedule.order + 1

        def before_batch(self) -> None:
            if self.training:
                seen.append((self.xb[0].shape[1], *(float(h["lr"]) for h in self.opt.hypers)))

    seen: list[tuple[float, ...]] = []
    phase = Phase(name="flat", schedule="flat-cosine", pct_start=0.99, lr=1e-2, lr_lowest=1e-3)
    settings = RANDOM_LM.model_copy(update={"phases": (phase,), "bs": 4 // accumulate, "accumulate": accumulate})
    train(tmp_path, settings, (Watch(),))
    widths, first, *_, last = map(np.array, zip(*seen, strict=True))
    assert len(set(widths)) > 4
    np.testing.assert_allclose(last, 1e-2 * widths / 10)
    np.testing.assert_allclose(first, 1e-3 * widths / 10)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_resumes_exactly(tmp_path: Path, accumulate: int) -> None:
    settings = RANDOM_LM.model_copy(update={"bs": 4 // accumulate, "accumulate": accumulate})
    unbroken = train(tmp_path / "unbroken", settings)
    assert not same(unbroken, train(tmp_path / "fixed", settings.model_copy(update={"random_seq_len": False})))
    for moment in (1, 6, 14, 15, 16, 17, 18, 25, 40):
        with pytest.raises(Stopped):
            train(tmp_path / str(moment), settings, (StopAt(moment),))
        stopping.forget()
        assert same(train(tmp_path / str(moment), settings), unbroken), f"stopped at batch {moment}"
