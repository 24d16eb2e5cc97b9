"""Steps and batches: every token is read once, and little else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inference.ragged import WASTE_TOKENS, plan_batches, plan_steps

lengths_lists = st.lists(st.integers(1, 500), min_size=1, max_size=40)


@settings(max_examples=100)
@given(lengths=lengths_lists, step_tokens=st.integers(1, 5000))
def test_steps_read_every_token_once_and_little_beside(lengths: list[int], step_tokens: int) -> None:
    ordered = np.array(sorted(lengths, reverse=True))
    read = np.zeros((len(ordered), ordered[0]), dtype=int)
    at = 0
    for step in plan_steps(ordered, step_tokens):
        assert step.start == at < step.stop
        assert step.rows == (ordered > step.start).sum(), "rows that have ended have left"
        width = step.stop - step.start
        assert width == 1 or step.rows * width <= step_tokens
        assert np.maximum(step.stop - ordered[: step.rows], 0).sum() <= WASTE_TOKENS
        read[: step.rows, step.start : step.stop] += 1
        at = step.stop
    assert at == ordered[0]
    for row, length in zip(read, ordered, strict=True):
        assert (row[:length] == 1).all()


def test_one_document_is_read_in_one_step() -> None:
    (step,) = plan_steps(np.array([3000]), 4608)
    assert (step.start, step.stop, step.rows) == (0, 3000, 1)


@settings(max_examples=60)
@given(lengths=lengths_lists, bs=st.integers(1, 9), step_tokens=st.integers(1, 900))
def test_batches_hold_every_document_once_longest_first(lengths: list[int], bs: int, step_tokens: int) -> None:
    batches = plan_batches(np.array(lengths), bs, step_tokens)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert order.tolist() == sorted(range(len(lengths)), key=lambda i: -lengths[i]), "equals keep their order"
    for batch in batches:
        assert len(batch) <= bs or len(batch) * max(lengths[i] for i in batch) <= step_tokens


def test_no_documents_no_batches() -> None:
    assert plan_batches(np.array([], dtype=np.int64), 4, 100) == []
