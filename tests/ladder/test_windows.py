"""Steps of a running text: streams and windows, the grid they share, any batch by its number."""

import numpy as np
import pytest
import torch

from pipeline.errors import DataError
from pipeline.ladder.rungs import LanguageModelSettings
from pipeline.ladder.windows import StreamLoader, WindowLoader, loaders
from pipeline.training.loaders import Batch

TEXT = np.arange(100, dtype=np.uint16)


class Store:
    """Documents of 1, 40 and 60 tokens, the last of them to validate; every first token is the mark of a document."""

    ids = np.arange(101, dtype=np.uint16)
    offsets = np.array([0, 1, 41, 101])

    def documents(self, *splits: str) -> np.ndarray:
        return np.array([0, 1]) if "train" in splits else np.array([2])


def rows(batch: Batch) -> list[tuple[list[int], list[int]]]:
    return [(x.tolist(), y.tolist()) for x, y in zip(*batch, strict=True)]


def test_streams_are_cut_into_whole_steps() -> None:
    loader = StreamLoader(TEXT, LanguageModelSettings(bs=4, seq_len=5))
    batches = list(loader)
    assert len(batches) == len(loader) == 4  # (100 - 1) // 4 = 24 tokens, of which 20 are whole steps
    assert rows(batches[0])[1] == ([20, 21, 22, 23, 24], [21, 22, 23, 24, 25])
    assert rows(batches[1])[1] == ([25, 26, 27, 28, 29], [26, 27, 28, 29, 30])
    assert loader.predicted_tokens == sum(y.numel() for _, y in batches) == 80


def test_a_step_may_predict_its_last_token_only() -> None:
    loader = StreamLoader(TEXT, LanguageModelSettings(bs=4, seq_len=3, predicts="last"))
    assert rows(next(iter(loader)))[0] == ([0, 1, 2], [3])
    assert loader.predicted_tokens == sum(y.numel() for _, y in loader)


def test_a_short_text_has_fewer_streams() -> None:
    loader = StreamLoader(TEXT[:13], LanguageModelSettings(bs=64, seq_len=5))
    assert [rows(batch) for batch in loader] == [
        [([0, 1, 2, 3, 4], [1, 2, 3, 4, 5]), ([5, 6, 7, 8, 9], [6, 7, 8, 9, 10])]
    ]


@pytest.mark.parametrize("settings", [LanguageModelSettings(seq_len=5), LanguageModelSettings(seq_len=5, stride=2)])
def test_a_text_without_a_step_is_refused(settings: LanguageModelSettings) -> None:
    loader = StreamLoader if settings.stride is None else WindowLoader
    assert len(loader(TEXT[:6], settings)) == 1
    with pytest.raises(DataError, match="A text of 5 tokens has no step of 5 tokens and one more to predict"):
        loader(TEXT[:5], settings)


def test_windows_cover_the_text() -> None:
    loader = WindowLoader(TEXT[:12], LanguageModelSettings(bs=2, seq_len=3, stride=4, predicts="last"))
    assert [rows(batch) for batch in loader] == [[([0, 1, 2], [3]), ([4, 5, 6], [7])], [([8, 9, 10], [11])]]
    assert (len(loader), loader.predicted_tokens) == (2, 3)
    every = WindowLoader(TEXT[:12], LanguageModelSettings(bs=2, seq_len=3, stride=3))
    assert rows(next(iter(every)))[1] == ([3, 4, 5], [4, 5, 6])
    assert every.predicted_tokens == 9


def test_any_batch_can_be_asked_for_by_its_number() -> None:
    for loader in (
        WindowLoader(TEXT, LanguageModelSettings(bs=7, seq_len=3, stride=1), seed=3),
        StreamLoader(TEXT, LanguageModelSettings(bs=3, seq_len=4)),
    ):
        whole = list(loader.batches(epoch=2))
        for first in range(len(whole)):
            for (x, y), (x2, y2) in zip(whole[first:], loader.batches(2, first), strict=True):
                assert torch.equal(x, x2)
                assert torch.equal(y, y2)


def test_a_seed_shuffles_windows_anew_in_each_epoch() -> None:
    loader = WindowLoader(TEXT, LanguageModelSettings(bs=10, seq_len=3, stride=1), seed=3)
    orders = []
    for epoch in range(2):
        starts = [row[0] for x, _ in loader.batches(epoch) for row in x.tolist()]
        assert sorted(starts) == list(range(97))
        orders.append(starts)
    assert orders[0] != orders[1]


def test_shifted_windows_begin_at_every_token_in_turn() -> None:
    settings = LanguageModelSettings(bs=4, seq_len=3, stride=3, shift=True)
    loader = WindowLoader(TEXT[:12], settings, seed=3)
    seen = [sorted(row[0] for x, _ in loader.batches(epoch) for row in x.tolist()) for epoch in range(4)]
    assert seen == [[0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 3, 6]]
    assert max(y[-1] for _, y in rows(next(loader.batches(2)))) == 11  # the last token
    validation = WindowLoader(TEXT[:12], settings)
    assert [row[0] for x, _ in validation.batches(1) for row in x.tolist()] == [0, 3, 6]
    shortest = WindowLoader(TEXT[:4], settings, seed=3)
    assert [rows(batch) for batch in shortest.batches(1)] == [[([0, 1, 2], [1, 2, 3])]]


def test_a_model_may_be_scored_after_whole_windows_only() -> None:
    settings = LanguageModelSettings(bs=4, seq_len=3, stride=3, scored="after windows")
    train, valid = loaders(Store(), settings, seed=0)  # type: ignore[arg-type]
    assert next(iter(train))[1].shape == (4, 3)
    assert rows(next(iter(valid)))[:2] == [([44, 45, 46], [47]), ([45, 46, 47], [48])]


def test_the_steps_of_validation_go_on_where_those_of_training_would() -> None:
    settings = LanguageModelSettings(bs=1, seq_len=3, stride=3, predicts="last")
    train, valid = loaders(Store(), settings, seed=0)  # type: ignore[arg-type]
    first_train, first_valid = next(iter(train))[0], next(iter(valid))[0]
    assert first_train.tolist() == [[1, 2, 3]]
    # Training reads 40 tokens, 13 steps and one over; validation, whose text begins at 42, leaves out two.
    assert first_valid.tolist() == [[44, 45, 46]]
