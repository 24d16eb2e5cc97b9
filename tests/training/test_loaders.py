"""Loaders against fastai's, and their order as a function of seed and epoch."""

import numpy as np
import pytest
import torch
from documents import random_documents
from fastai.text.data import LMDataLoader, Pad_Chunk, TensorText
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.training.loaders import ClassifierLoader, LanguageModelLoader, pad_documents

lengths = st.lists(st.integers(1, 30), min_size=3, max_size=40)


@settings(max_examples=40)
@given(lengths=lengths, bs=st.integers(1, 6), seq_len=st.integers(2, 12), seed=st.integers(0, 5))
def test_language_model_batches_equal_lmdataloaders(lengths: list[int], bs: int, seq_len: int, seed: int) -> None:
    documents = random_documents(lengths)
    if sum(lengths) - 1 < bs:
        return
    ours = LanguageModelLoader(documents, np.arange(len(lengths)), bs=bs, seq_len=seq_len, seed=seed)
    in_order = [torch.from_numpy(documents.document(i).astype(np.int64)) for i in ours.order(0)]
    theirs = list(LMDataLoader(in_order, bs=bs, seq_len=seq_len, shuffle=False))
    assert len(ours) == len(theirs)
    for (x, y), (their_x, their_y) in zip(ours, theirs, strict=True):
        assert torch.equal(x, torch.Tensor(their_x).long())
        assert torch.equal(y, torch.Tensor(their_y).long())


def test_any_batch_can_be_asked_for_by_its_number() -> None:
    loader = LanguageModelLoader(random_documents([37] * 20), np.arange(20), bs=4, seq_len=10, seed=1)
    every = list(loader.batches(epoch=2))
    for first in (0, 5, len(loader) - 1):
        for (x, y), (all_x, all_y) in zip(loader.batches(2, first), every[first:], strict=True):
            assert torch.equal(x, all_x)
            assert torch.equal(y, all_y)


def test_order_depends_on_seed_and_epoch_only() -> None:
    documents = random_documents([20] * 50)
    loader = LanguageModelLoader(documents, np.arange(50), bs=4, seq_len=10, seed=3)
    again = LanguageModelLoader(documents, np.arange(50), bs=4, seq_len=10, seed=3)
    list(loader)  # reading does not move it
    assert np.array_equal(loader.order(1), again.order(1))
    assert not np.array_equal(loader.order(0), loader.order(1))
    other = LanguageModelLoader(documents, np.arange(50), bs=4, seq_len=10, seed=4)
    assert not np.array_equal(loader.order(0), other.order(0))


def test_backwards_reverses_every_document() -> None:
    documents = random_documents([7, 5, 9])
    loader = LanguageModelLoader(documents, np.arange(3), bs=1, seq_len=30, backwards=True)
    ((x, y),) = list(loader)
    expected = np.concatenate([documents.document(i)[::-1] for i in range(3)])
    assert x[0].tolist() == expected[:-1].tolist()
    assert y[0].tolist() == expected[1:].tolist()


def test_too_few_tokens_name_the_setting() -> None:
    with pytest.raises(DataError, match=r"8 tokens are too few for 16 streams\. Lower finetune_lm\.bs with --set\."):
        LanguageModelLoader(random_documents([8]), np.arange(1), bs=16, seq_len=10)


@settings(max_examples=40)
@given(lengths=lengths, seq_len=st.integers(2, 12))
def test_padding_equals_fastais_pad_chunk_on_whole_chunks(lengths: list[int], seq_len: int) -> None:
    longest = max(lengths) if max(lengths) <= seq_len else -(-max(lengths) // seq_len) * seq_len
    documents = random_documents([longest, *lengths])
    rows = [documents.document(i) for i in range(len(documents))]
    pad = Pad_Chunk(pad_idx=1, pad_first=True, seq_len=seq_len)
    samples = [(TensorText(torch.from_numpy(row.astype(np.int64))),) for row in rows]
    theirs = torch.stack([sample[0].as_subclass(torch.Tensor) for sample in pad(samples)])
    assert torch.equal(pad_documents(rows, seq_len), theirs)


@settings(max_examples=40)
@given(lengths=lengths, bs=st.integers(2, 8), seed=st.one_of(st.none(), st.integers(0, 3)), backwards=st.booleans())
def test_classifier_batches_hold_every_document_once(
    lengths: list[int], bs: int, seed: int | None, backwards: bool
) -> None:
    documents = random_documents(lengths)
    labels = np.arange(len(lengths), dtype=np.int32)
    chosen = np.arange(1, len(lengths))
    loader = ClassifierLoader(documents, chosen, labels, bs=bs, seq_len=5, seed=seed, backwards=backwards)
    seen = []
    batches = list(loader)
    assert len(batches) == len(loader)
    for (x, y), positions in zip(batches, loader.document_order(), strict=True):
        assert y.tolist() == chosen[positions].tolist()
        row_lengths = (x != 1).sum(1)
        assert torch.equal(row_lengths, row_lengths.sort(descending=True).values)
        for row, label in zip(x, y.tolist(), strict=True):
            expected = documents.document(label)[:: -1 if backwards else 1]
            assert row[row != 1].tolist() == expected.tolist()
        seen += y.tolist()
        assert len(y) > 1 or len(chosen) == 1
    assert sorted(seen) == chosen.tolist()


def test_longest_documents_come_first_in_training() -> None:
    documents = random_documents([5] * 30 + [29] + [5] * 30)
    loader = ClassifierLoader(documents, np.arange(61), np.zeros(61, np.int32), bs=8, seq_len=5, seed=7)
    for epoch in range(3):
        loader.epoch = epoch
        assert (next(iter(loader))[0][0] != 1).sum() == 29


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=6), seq_len=st.integers(3, 9))
def test_a_document_is_encoded_the_same_alone_and_in_company(lengths: list[int], seq_len: int) -> None:
    torch.manual_seed(0)
    model = build_classifier(
        Architecture(vocabulary_size=40, emb_sz=6, n_hid=8, n_layers=2), HeadShape(2, (4,), seq_len, max_len=1000)
    ).eval()
    documents = random_documents(lengths)
    loader = ClassifierLoader(
        documents, np.arange(len(lengths)), np.zeros(len(lengths), np.int32), bs=len(lengths), seq_len=seq_len
    )
    with torch.no_grad():
        ((x, _),) = list(loader)
        together = model(x)[0]
        for row, i in zip(together, loader.document_order()[0], strict=True):
            alone = model(pad_documents([documents.document(int(i))], seq_len))[0]
            torch.testing.assert_close(row, alone[0], rtol=0, atol=1e-5)
