"""2,000 real reviews through the first three stages against plain fastai: tokens, vocabulary, ids, batches."""

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command_line import call, manifest
from fastai.text.core import SpacyTokenizer, TokenizeWithRules
from fastai.text.data import LMDataLoader, Numericalize, make_vocab

from pipeline.artifact import open_artifact
from pipeline.corpus.store import read_columns
from pipeline.text.ids import IdStore
from pipeline.training.loaders import LanguageModelLoader

PER_SPLIT = 1000


@pytest.fixture(scope="module")
def home(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 1,000 reviews of each split of the real archive."""
    folder = tmp_path_factory.mktemp("imdb")
    call(
        "run", "--recipe", "imdb", "--home", str(folder), "--source", str(shared_data / "aclImdb_v1.tar.gz"),
        "--set", f"prepare_corpus.limit_per_split={PER_SPLIT}", "--until", "numericalize_corpus",
    )
    return folder


@pytest.fixture(scope="module")
def store(home: Path) -> IdStore:
    return IdStore.open(open_artifact(home / "data/imdb/ids", "ids"))


@pytest.fixture(scope="module")
def fastai_tokens(home: Path) -> list[list[str]]:
    """fastai's tokens of train, unlabelled and valid, in corpus order."""
    texts = read_columns(
        open_artifact(home / "data/imdb/corpus", "corpus"), ["text"], splits=["train", "unlabelled", "valid"]
    )["text"].to_pylist()
    assert len(texts) == 2 * PER_SPLIT
    return [list(tokens) for tokens in TokenizeWithRules(SpacyTokenizer())(texts)]


def test_vocabulary_equals_make_vocab(store: IdStore, fastai_tokens: list[list[str]]) -> None:
    training = fastai_tokens[: len(store.documents("train", "unlabelled"))]
    theirs = make_vocab(Counter(token for tokens in training for token in tokens), min_freq=3, max_vocab=60000)
    assert store.vocabulary == [token for token in theirs if token != "xxfake"]


def test_ids_equal_numericalize(store: IdStore, fastai_tokens: list[list[str]]) -> None:
    numericalize = Numericalize(store.vocabulary)
    for i, tokens in enumerate(fastai_tokens):
        assert store.document(i).tolist() == numericalize(tokens).tolist()


def test_the_first_twenty_batches_equal_lmdataloaders(store: IdStore, fastai_tokens: list[list[str]]) -> None:
    ours = LanguageModelLoader(store, store.documents("train", "unlabelled"), bs=64, seq_len=72, seed=42)
    numericalize = Numericalize(store.vocabulary)
    in_order: list[Any] = [numericalize(fastai_tokens[i]) for i in ours.order(0)]
    theirs = LMDataLoader(in_order, bs=64, seq_len=72, shuffle=False)
    assert len(ours) == len(theirs)
    compared = 0
    for (x, y), (their_x, their_y) in zip(ours, theirs, strict=False):
        assert torch.equal(x, their_x.as_subclass(torch.Tensor).long())
        assert torch.equal(y, their_y.as_subclass(torch.Tensor).long())
        compared += 1
        if compared == 20:
            break
    assert compared == 20


def test_no_test_text_reaches_vocabulary_or_language_model(store: IdStore) -> None:
    loader = LanguageModelLoader(store, store.documents("train", "unlabelled"), bs=8, seq_len=72, seed=1)
    assert loader.n_tokens == int(store.n_tokens[np.isin(store.splits, ["train", "unlabelled"])].sum())
    assert len(store.documents("test")) == PER_SPLIT


def differing_from_fastai(corpus: Path, tokens: Path, row_group: int, first: int) -> list[str]:
    """The documents of a row group, whose first is number `first`, that have other tokens than fastai gives."""
    documents = pq.ParquetFile(corpus / "documents.parquet").read_row_group(row_group, columns=["doc_id", "text"])
    types = np.array(pq.read_table(tokens / "types.parquet")["token"].to_pylist(), dtype=object)
    type_ids = np.memmap(tokens / "type_ids.bin", dtype="<u4", mode="r")
    offsets = np.load(tokens / "offsets.npy")[first : first + len(documents) + 1]
    theirs = TokenizeWithRules(SpacyTokenizer())(documents["text"].to_pylist())
    return [
        doc_id
        for doc_id, (a, b), expected in zip(documents["doc_id"].to_pylist(), pairwise(offsets), theirs, strict=True)
        if list(types[type_ids[a:b]]) != list(expected)
    ]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_tokens_of_all_reviews_equal_fastais(shared_data: Path, tmp_path: Path) -> None:
    arguments = ["--recipe", "imdb", "--home", str(tmp_path), "--source", str(shared_data / "aclImdb_v1.tar.gz")]
    call("run", *arguments, "--until", "tokenize_corpus")
    corpus, tokens = tmp_path / "data/imdb/corpus", tmp_path / "data/imdb/tokens"
    groups = pq.ParquetFile(corpus / "documents.parquet").metadata
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert sum(sizes) == 100_000
    firsts = np.cumsum([0, *sizes[:-1]]).tolist()
    n = len(sizes)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        differing = list(pool.map(differing_from_fastai, [corpus] * n, [tokens] * n, range(n), firsts))
    assert differing == [[]] * n


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_archive_goes_through_to_ids(shared_data: Path, tmp_path: Path) -> None:
    arguments = ["--recipe", "imdb", "--home", str(tmp_path), "--source", str(shared_data / "aclImdb_v1.tar.gz")]
    call("run", *arguments, "--until", "numericalize_corpus")
    corpus = tmp_path / "data/imdb/corpus"
    call(
        "run", *arguments, "--run", "subword", "--until", "numericalize_corpus", "--set", f"inputs.corpus={corpus}",
        "--set", "tokenize_corpus.tokenizer=subword", "--set", "numericalize_corpus.min_freq=1",
    )
    for run in ("imdb", "subword"):
        store = IdStore.open(open_artifact(tmp_path / "data" / run / "ids", "ids"))
        assert len(store) == 100_000
        assert store.labels == ["neg", "pos"]
        found = Counter(zip(store.splits.tolist(), store.label_ids.tolist(), strict=True))
        assert found == {
            ("train", 0): 11_250, ("train", 1): 11_250, ("valid", 0): 1_250, ("valid", 1): 1_250,
            ("test", 0): 12_500, ("test", 1): 12_500, ("unlabelled", -1): 50_000,
        }
    metrics = manifest(tmp_path / "data/subword/tokens")["metrics"]
    assert metrics["training_share"] == {"documents": 1.0, "bytes": 1.0}
