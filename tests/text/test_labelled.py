"""Which labelled documents a draw takes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.ids import IdStore
from pipeline.text.labelled import labelled_documents

CASES = st.tuples(
    st.lists(st.tuples(st.sampled_from(["train", "unlabelled", "valid", "test"]), st.integers(-1, 2)), max_size=80),
    st.integers(4, 60), st.integers(0, 3),
)


def store_of(documents: list[tuple[str, int]]) -> IdStore:
    splits, labels = [split for split, _ in documents], [label for _, label in documents]
    nothing = np.zeros(0, np.uint16)
    return IdStore(
        Path(), nothing, np.zeros(len(splits) + 1, np.int64), np.array(splits, dtype=np.str_),
        np.array(labels, dtype=np.int32), nothing.astype(np.int32), [], ["a", "b", "c"],
    )


@given(CASES)
def test_a_draw_takes_labelled_documents_only_and_no_more_than_it_says(case: tuple) -> None:
    documents, n, seed = case
    store = store_of(documents)
    everything = labelled_documents(store, ("train", "valid"))
    assert everything.tolist() == [
        i for i, (split, label) in enumerate(documents) if split in ("train", "valid") and label >= 0
    ]
    drawn = labelled_documents(store, ("train", "valid"), n, seed)
    assert len(drawn) == len(set(drawn.tolist())) <= n
    assert set(drawn) <= set(everything)
    assert (np.diff(drawn) > 0).all()
    parts = [labelled_documents(store, (split,), n, seed) for split in ("train", "valid")]
    assert drawn.tolist() == np.sort(np.concatenate(parts)).tolist()
    if len(everything) <= n and (np.array([d[0] for d in documents]) == "valid").sum() < 2:
        assert len(drawn) == len(everything)
    test = labelled_documents(store, ("test",), n, seed)
    assert test.tolist() == labelled_documents(store, ("test",)).tolist()


@pytest.mark.parametrize("n", [20, 50, 100])
def test_labels_and_splits_have_their_shares_and_draws_are_nested(n: int) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.7).astype(int).tolist()
    store = store_of([("train" if i % 10 else "valid", label) for i, label in enumerate(labels)])
    train, valid = (labelled_documents(store, (split,), n, seed=1) for split in ("train", "valid"))
    assert (len(train), len(valid)) == (n - n // 10, n // 10)
    assert np.bincount(store.label_ids[train]).tolist() == [len(train) // 2, -(-len(train) // 2)]
    larger = labelled_documents(store, ("train",), 2 * n, seed=1)
    assert set(train) < set(larger)
    assert set(train) != set(labelled_documents(store, ("train",), n, seed=2))
