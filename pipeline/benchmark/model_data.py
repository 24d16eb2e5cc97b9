"""Ids and models for the cases that need no text: generated, and sealed as the stages seal theirs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifact import Artifact, hash_folder, hash_json
from pipeline.benchmark.data import MEDIAN_TOKENS, Lengths, documents_of, lengths_by_batch, review_lengths, vocabulary
from pipeline.benchmark.sizes import Sizes
from pipeline.benchmark.turns import Turns, Work
from pipeline.making import Order, StageOutcome, make
from pipeline.progress import Reporter
from pipeline.text.arrays import save_array
from pipeline.text.tokenizer import save_tokenizer
from pipeline.text.vocabulary import write_vocabulary
from pipeline.text.word import WordTokenizer

LABELS = ("neg", "pos")
VALID_LENGTHS = np.array([30, 20, 25, 15])
"""Validation is not measured."""


def prepare_ids(turns: Turns, work: Work) -> None:
    """Ids enough for all steps of a language-model case."""
    sizes = work.sizes
    steps = sizes.lm_warm_steps + sizes.repeats + 1
    n_tokens = sizes.lm_bs * (steps * sizes.lm_seq_len + 1)
    seal_ids(work.shared / "ids", n_tokens, sizes.vocabularies[work.parameters["vocabulary"]])


def prepare_loader_ids(turns: Turns, work: Work) -> None:
    """Ids for the loader's epoch."""
    seal_ids(work.shared / "ids", work.sizes.loader_tokens, _size_of_vocabulary(work.sizes))


def prepare_classifiers(turns: Turns, work: Work) -> None:
    """Labelled ids, a language model to start from, and two classifiers with random weights."""
    from pipeline.benchmark.random_models import seal_classifier, seal_language_model

    sizes, rng = work.sizes, np.random.default_rng(0)
    size = _size_of_vocabulary(sizes)
    lengths = lengths_by_batch(sizes.training_batches, sizes.classifier_bs, rng)
    ids = seal_documents(work.shared / "ids", lengths, size, rng)
    seal_language_model(work.shared / "lm", ids, size, sizes.lstm)
    seal_classifier(work.shared / "classifier", ids, size, sizes.lstm)
    seal_classifier(work.shared / "small-classifier", ids, size, sizes.small_lstm)
    lengths = lengths_by_batch(sizes.prediction_batches, sizes.classifier_bs, rng)
    seal_documents(work.shared / "ids-to-predict", lengths, size, rng)


def _size_of_vocabulary(sizes: Sizes) -> int:
    return max(sizes.vocabularies.values())


def seal_ids(target: Path, n_tokens: int, vocabulary_size: int) -> Artifact:
    """Training documents of `n_tokens` in all, as long as IMDB's."""
    rng = np.random.default_rng(vocabulary_size)
    lengths = review_lengths(n_tokens // 10, MEDIAN_TOKENS, rng)
    ends = np.cumsum(lengths)
    n = int(np.searchsorted(ends, n_tokens)) + 1
    lengths = lengths[:n]
    lengths[-1] -= ends[n - 1] - n_tokens
    return seal_documents(target, lengths[lengths > 0], vocabulary_size, rng)


def seal_documents(target: Path, lengths: Lengths, vocabulary_size: int, rng: np.random.Generator) -> Artifact:
    """Training documents of those lengths, in a shuffled order, labelled in turn, and a few for validation."""
    lengths = np.concatenate([rng.permutation(lengths), VALID_LENGTHS])
    ids = documents_of(lengths, vocabulary_size, rng)
    words = vocabulary(vocabulary_size)
    label_ids = np.arange(len(lengths)) % len(LABELS)
    n_train = len(lengths) - len(VALID_LENGTHS)

    def write(work: Path) -> dict[str, str]:
        (work / "ids.bin").write_bytes(ids.astype("<u2" if vocabulary_size <= 65_536 else "<u4").tobytes())
        save_array(work / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        columns: dict[str, Any] = {
            "doc_id": pa.array([f"d{i}" for i in range(len(lengths))], pa.string()),
            "split": pa.array(["train"] * n_train + ["valid"] * len(VALID_LENGTHS), pa.string()),
            "label": pa.array([LABELS[i] for i in label_ids], pa.string()),
            "label_id": pa.array(label_ids, pa.int32()),
            "n_chars": pa.array(lengths * 5, pa.int32()),
            "n_tokens": pa.array(lengths, pa.int32()),
        }
        pq.write_table(pa.table(columns), work / "documents.parquet")
        (work / "labels.json").write_text(json.dumps(LABELS), encoding="utf-8")
        write_vocabulary(work, words)
        save_tokenizer(WordTokenizer(), work / "tokenizer")
        return {"tokenizer": hash_folder(work / "tokenizer"), "vocabulary": hash_json(words)}

    return seal(target, "ids", write)


def seal(
    target: Path, slot: str, write: Callable[[Path], dict[str, str]], metrics: dict[str, Any] | None = None
) -> Artifact:
    """A sealed artifact of what `write` puts into its folder; `write` returns its identity."""

    def work(folder: Path, resuming: bool) -> StageOutcome:
        return StageOutcome(metrics or {}, write(folder))

    order = Order(target, slot, "benchmark", 1, hash_json(["benchmark", slot, target.name]), {})
    return make(order, work, Reporter())

