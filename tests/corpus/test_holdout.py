"""Properties of the split: whole units, near to the asked shares, the same for any order of the source."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus.documents import SPLITS, TEST, TRAIN, UNLABELLED, VALID
from pipeline.corpus.holdout import connect, hold_out
from pipeline.corpus.splits import DROPPED, plan_splits
from pipeline.corpus.spool import Index
from pipeline.errors import DataError, UsageError
from pipeline.settings import PrepareCorpusSettings


def index_of(splits: list[int], labels: list[int], groups: list[int], texts: list[int], seed: int = 0) -> Index:
    n = len(splits)
    return Index(
        np.array(splits, np.int8), np.array(labels, np.int32), np.array(groups, np.int32), np.full(n, 10, np.int32),
        np.array(texts, np.uint64), np.random.default_rng(seed).permutation(n).astype(np.uint64),
        ["a", "b", "c"], [f"g{i}" for i in range(1 + max([0, *groups]))],
    )


@st.composite
def indexes(draw: st.DrawFn) -> Index:
    n = draw(st.integers(40, 200))
    brings = draw(st.sampled_from([[TRAIN], [TRAIN, UNLABELLED], [TRAIN, UNLABELLED, TEST], [TRAIN, VALID]]))
    splits = [draw(st.sampled_from(brings)) for _ in range(n - 30)] + [TRAIN] * 30
    labels = [-1 if split == UNLABELLED else draw(st.integers(0, 2)) for split in splits[:-30]] + [0, 1, 2] * 10
    texts = [draw(st.integers(0, 2 * n)) for _ in range(n - 30)] + list(range(10_000, 10_030))
    grouped = draw(st.booleans()) and TEST not in brings and VALID not in brings
    groups = [draw(st.integers(-1, n // 4)) if grouped else -1 for _ in range(n)]
    return index_of(splits, labels, groups, texts, draw(st.integers(0, 99)))


SETTINGS = PrepareCorpusSettings(valid_fraction=0.2, test_fraction=0.2)


@settings(max_examples=60)
@given(indexes())
def test_nothing_straddles(index: Index) -> None:
    final = plan_splits(index, SETTINGS).splits
    learned = np.isin(final, (TRAIN, UNLABELLED))
    assert not np.isin(index.text_hashes[final == VALID], index.text_hashes[learned]).any()
    groups = [set(index.groups[(final == s) & (index.groups >= 0)].tolist()) for s in (TEST, VALID)]
    in_train = set(index.groups[learned & (index.groups >= 0)].tolist())
    assert not groups[0] & groups[1]
    assert not groups[0] & in_train
    assert not groups[1] & in_train
    if not (index.splits == TEST).any():
        assert not np.isin(index.text_hashes[final == TEST], index.text_hashes[final != TEST]).any()
    assert set(index.labels[final == TRAIN].tolist()) == {0, 1, 2}
    for split in (TEST, VALID):  # what the source brings stays where it was
        assert (final[index.splits == split] == split).all()
    assert ((final != DROPPED) | (index.splits == TRAIN) | (index.splits == UNLABELLED)).all()


@settings(max_examples=60)
@given(indexes(), st.randoms(use_true_random=False))
def test_order_of_the_source_does_not_matter(index: Index, random: object) -> None:
    order = np.random.default_rng(len(index.splits)).permutation(len(index.splits))
    shuffled = Index(
        index.splits[order], index.labels[order], index.groups[order], index.n_chars[order], index.text_hashes[order],
        index.ranks[order], index.label_names, index.group_names,
    )
    assert (plan_splits(shuffled, SETTINGS).splits == plan_splits(index, SETTINGS).splits[order]).all()


@settings(max_examples=60)
@given(st.lists(st.integers(0, 2), min_size=30, max_size=300), st.floats(0.05, 0.5))
def test_single_documents_give_exact_shares(labels: list[int], fraction: float) -> None:
    n = len(labels)
    strata = np.array(labels, np.int32)
    out = hold_out(np.arange(n), strata, np.arange(n, dtype=np.uint64), np.zeros(n, np.bool_), fraction)
    for stratum in set(labels):
        total = labels.count(stratum)
        wanted = min(max(round(fraction * total), 1), total - 1)
        assert out[strata == stratum].sum() == wanted


@settings(max_examples=60)
@given(st.integers(0, 1000), st.floats(0.1, 0.4))
def test_groups_come_near_to_the_shares(seed: int, fraction: float) -> None:
    random = np.random.default_rng(seed)
    n = 2_000
    strata = random.integers(0, 2, n).astype(np.int32)
    units = connect(np.arange(n, dtype=np.uint64), random.integers(0, 150, n).astype(np.int32))
    out = hold_out(units, strata, random.permutation(n).astype(np.uint64), np.zeros(n, np.bool_), fraction)
    for stratum in (0, 1):
        assert out[strata == stratum].mean() == pytest.approx(fraction, abs=0.03)
    assert not set(units[out].tolist()) & set(units[~out].tolist())


def test_connected_by_text_and_group() -> None:
    texts, groups = np.array([1, 2, 2, 3, 4, 4, 5], np.uint64), np.array([0, 0, 1, 1, -1, -1, -1], np.int32)
    units = connect(texts, groups)
    assert units[0] == units[1] == units[2] == units[3]
    assert units[4] == units[5]
    assert len(set(units.tolist())) == 3


def test_text_that_is_also_unlabelled_stays_in_train() -> None:
    index = index_of([TRAIN] * 20 + [UNLABELLED] * 9, [0, 1] * 10 + [-1] * 9, [-1] * 29, [*range(20), *range(9)])
    final = plan_splits(index, SETTINGS.model_copy(update={"test_fraction": 0.0})).splits
    assert (final[:9] == TRAIN).all()
    assert (final == VALID).sum() == 4


def test_few_groups_still_give_a_validation_split() -> None:
    index = index_of([TRAIN] * 30, [0, 1] * 15, [0] * 10 + [1] * 12 + [2] * 8, list(range(30)))
    final = plan_splits(index, PrepareCorpusSettings(valid_fraction=0.1, test_fraction=0.0)).splits
    assert final.tolist() == [TRAIN] * 22 + [VALID] * 8


def test_a_million_documents_in_seconds() -> None:
    n = 1_000_000
    random = np.random.default_rng(0)
    texts, groups = random.integers(0, 2**62, n), random.integers(0, 50_000, n)
    groups[200_000:] = -1
    index = Index(
        np.zeros(n, np.int8), random.integers(0, 5, n).astype(np.int32), groups.astype(np.int32),
        np.ones(n, np.int32), texts.astype(np.uint64), random.permutation(n).astype(np.uint64), list("abcde"), [],
    )
    start = time.process_time()  # other jobs on the machine do not count
    final = plan_splits(index, SETTINGS).splits
    assert time.process_time() - start < 15
    assert (final == TEST).mean() == pytest.approx(0.2, abs=0.002)
    assert (final == VALID).mean() == pytest.approx(0.16, abs=0.002)


def test_limit_is_even_and_not_first_come() -> None:
    labels = [0] * 200 + [1] * 95 + [2] * 5 + [0] * 10
    index = index_of([TRAIN] * 300 + [TEST] * 10, labels, [-1] * 310, list(range(310)))
    plan = plan_splits(index, PrepareCorpusSettings(limit_per_split=60, valid_fraction=0.0))
    kept = plan.splits == TRAIN
    assert [int((index.labels[kept] == label).sum()) for label in range(3)] == [28, 27, 5]
    assert (plan.splits == TEST).sum() == 10
    assert plan.beyond_limit == 240
    assert set(np.flatnonzero(kept)) - set(range(60))
    with pytest.raises(UsageError, match="limit_per_split is 2, but split train has 3 labels"):
        plan_splits(index, PrepareCorpusSettings(limit_per_split=2))


def test_group_on_both_sides_of_the_source_is_refused() -> None:
    index = index_of([TRAIN, TRAIN, VALID, TEST], [0, 1, 0, 1], [0, 1, 2, 1], [1, 2, 3, 4])
    with pytest.raises(DataError, match=r"Group 'g1' is in both train and test \(1 such groups\)\. Mend the source"):
        plan_splits(index, SETTINGS)


def test_names_of_splits_have_their_places() -> None:
    assert [SPLITS[number] for number in (TRAIN, UNLABELLED, VALID, TEST)] == ["train", "unlabelled", "valid", "test"]


def test_a_number_of_test_documents_is_shared_evenly() -> None:
    n = 300
    labels = [0] * 200 + [1] * 90 + [2] * 10
    index = index_of([TRAIN] * n, labels, [-1] * n, list(range(n)))
    splits = plan_splits(index, PrepareCorpusSettings(test_documents=60)).splits
    assert np.bincount(index.labels[splits == TEST]).tolist() == [25, 25, 9]  # one stays in train
    with pytest.raises(UsageError, match=r"test_documents is 2, but train has 3 labels\. Set it to 3 or more"):
        plan_splits(index, PrepareCorpusSettings(test_documents=2))
