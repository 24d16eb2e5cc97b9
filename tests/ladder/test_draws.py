"""Documents drawn by class: rare classes as often as others, in an order that seed and epoch fix."""

from pathlib import Path

import numpy as np
import torch

from pipeline.ladder.draws import DrawnLoader
from pipeline.text.ids import IdStore

N = 600
LABELS = np.repeat([0, 1, 2], [500, 90, 10]).astype(np.int32)


def loader(seed: int | None = 3) -> DrawnLoader:
    """Documents of one token, their number, and a mark."""
    ids = np.stack([np.full(N, 2), np.arange(N) + 10], 1).ravel().astype(np.uint16)
    store = IdStore(
        Path(), ids, np.arange(0, 2 * N + 1, 2), np.repeat(["train"], N), LABELS, np.full(N, 1, np.int32), [],
        ["a", "b", "c"],
    )
    return DrawnLoader(store, np.arange(5, N), LABELS, bs=20, seq_len=8, seed=seed)


def read(found: DrawnLoader, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents and labels of an epoch."""
    batches = list(found.batches(epoch))
    assert len(batches) == len(found) == 30
    return np.concatenate([x[:, 1].numpy() - 10 for x, _ in batches]), np.concatenate([y.numpy() for _, y in batches])


def test_all_classes_come_equally_often() -> None:
    documents, labels = read(loader(), 0)
    assert len(documents) == N - 5
    np.testing.assert_array_equal(labels, LABELS[documents])
    counts = np.bincount(labels)
    assert counts.min() > 150  # 198 each on average, standard deviation 11.5
    assert documents.min() >= 5  # none that was not chosen
    assert set(documents[labels == 2]) == set(range(590, 600))
    assert len(set(documents[labels == 0])) > 130  # within a class each alike: 162 different ones of 495 on average


def test_every_epoch_draws_anew_and_any_batch_can_be_asked_for() -> None:
    found = loader()
    assert not np.array_equal(np.sort(read(found, 0)[0]), np.sort(read(found, 1)[0]))
    whole = list(found.batches(1))
    for first in (0, 7, 29):
        for (x, y), (x2, y2) in zip(whole[first:], found.batches(1, first), strict=True):
            assert torch.equal(x, x2)
            assert torch.equal(y, y2)


def test_without_a_seed_each_document_comes_once() -> None:
    assert sorted(read(loader(None), 0)[0]) == list(range(5, N))
