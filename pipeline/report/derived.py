"""What a report says beside the sealed JSON: worked out of sealed tables and weights, kept in report.json."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.artifact import Artifact
from pipeline.corpus.documents import SPLITS
from pipeline.errors import InputError
from pipeline.inference.attribution import METHOD, attribute, words
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.report.metrics import accuracy_interval
from pipeline.settings import RunSettings
from pipeline.text.ids import IdStore

MISTAKES = 10
SHOWN_WORDS = 120
"""Of a long document: those around its strongest words."""
STRONGEST_WORDS = 5
LENGTH_BINS = 8
MIN_BIN_DOCUMENTS = 20
"""Fewer say nothing about a length."""
BOOTSTRAP_SAMPLES = 2000

Record = dict[str, Any]


def document_lengths(store: IdStore) -> dict[str, Record]:
    """Quartiles and extremes of tokens and characters of the documents of each split."""
    found = {}
    for split in SPLITS:
        documents = store.documents(split)
        if len(documents):
            found[split] = {
                "documents": len(documents),
                "tokens": _five_numbers(store.n_tokens[documents]),
                "characters": _five_numbers(store.n_chars[documents]),
            }
    return found


def _five_numbers(values: NDArray[Any]) -> dict[str, float]:
    names = ("shortest", "quarter", "median", "three_quarters", "longest")
    return dict(zip(names, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist(), strict=True))


def type_coverage(tokens: Artifact, vocabulary: Sequence[str]) -> dict[str, Record]:
    """Of each split: its distinct tokens, and the share of them that the vocabulary has."""
    table = pq.read_table(tokens.file("types.parquet"))
    names = set(vocabulary)
    known = np.array([token in names for token in table["token"].to_pylist()], dtype=np.bool_)
    found = {}
    for split in SPLITS:
        seen = table[split].to_numpy() > 0
        if seen.any():
            found[split] = {"types": int(seen.sum()), "in_vocabulary": float(known[seen].mean())}
    return found


def by_length(n_tokens: NDArray[np.int64], correct: NDArray[np.bool_], seed: int) -> list[Record]:
    """Accuracy with its bootstrap interval in bins of equally many documents, from short to long."""
    n_bins = max(1, min(LENGTH_BINS, len(n_tokens) // MIN_BIN_DOCUMENTS))
    starts = np.unique(np.quantile(n_tokens, np.linspace(0, 1, n_bins, endpoint=False), method="higher"))
    edges = np.append(starts, n_tokens.max() + 1)
    rows = []
    for low, high in pairwise(edges):
        here = (n_tokens >= low) & (n_tokens < high)
        rows.append(
            {
                "from_tokens": int(n_tokens[here].min()), "to_tokens": int(n_tokens[here].max()),
                "documents": int(here.sum()), **accuracy_interval(correct[here], BOOTSTRAP_SAMPLES, seed),
            }
        )
    return rows


class Predictions:
    """predictions.parquet beside the documents it is about. N documents."""

    def __init__(self, evaluation: Artifact, store: IdStore, labels: Sequence[str]) -> None:
        table = pq.read_table(evaluation.file("predictions.parquet"))
        self.labels, self.store = labels, store
        self.doc_ids: list[str] = table["doc_id"].to_pylist()
        self.true: list[str] = table["label"].to_pylist()
        self.predicted: list[str] = table["predicted"].to_pylist()
        self.correct: NDArray[np.bool_] = table["correct"].to_numpy()
        columns = [table[f"probability_{label}"].to_numpy() for label in labels]
        self.confidence: NDArray[np.float32] = np.max(columns, axis=0)
        numbers = {store.doc_ids[i]: int(i) for i in store.documents("test")}
        try:
            self.numbers = np.array([numbers[doc_id] for doc_id in self.doc_ids], dtype=np.int64)
        except KeyError as error:
            raise InputError(f"{evaluation.path} has predictions of documents that {store.path} lacks.") from error

    def by_length(self, seed: int) -> list[Record]:
        """Accuracy by the length of the documents in tokens."""
        return by_length(self.store.n_tokens[self.numbers], self.correct, seed)

    def mistakes(self, classifier: Artifact) -> list[Record]:
        """The wrongly predicted documents with the highest probability, and what each word of them contributed."""
        wrong = np.flatnonzero(~self.correct)
        worst = wrong[np.argsort(-self.confidence[wrong], kind="stable")][:MISTAKES]
        if not len(worst):
            return []
        # On the CPU in full precision: the same numbers whatever the classifier was trained in.
        bundle = load_classifier_bundle(classifier.path, RunSettings(device="cpu", precision="fp32"))
        found = []
        for i in worst:
            ids = self.store.document(int(self.numbers[i]))
            values = attribute(bundle.classifier, ids, self.labels.index(self.predicted[i]))
            marked = words(bundle.text.tokenizer, [self.store.vocabulary[t] for t in ids], values.tolist())
            start, stop = _window([word.value for word in marked])
            speaking = [at for at in range(start, stop) if any(c.isalnum() for c in marked[at].text)]
            strongest = sorted(speaking, key=lambda at: -abs(marked[at].value))[:STRONGEST_WORDS]
            found.append(
                {
                    "doc_id": self.doc_ids[i], "label": self.true[i], "predicted": self.predicted[i],
                    "probability": float(self.confidence[i]), "tokens": len(ids),
                    "words_before": start, "words_after": len(marked) - stop,
                    "words": [[word.text, word.value, word.glued] for word in marked[start:stop]],
                    "strongest": [[marked[at].text, marked[at].value] for at in strongest],
                }
            )
        return found


def _window(values: Sequence[float]) -> tuple[int, int]:
    """The SHOWN_WORDS words in a row with the largest contributions; words without a number are not among them."""
    strength = np.abs(np.array(values, dtype=np.float64))
    numbered = np.flatnonzero(~np.isnan(strength))
    if not len(numbered):
        return 0, 0
    width = min(SHOWN_WORDS, len(numbered))
    sums = np.convolve(strength[numbered], np.ones(width), "valid")
    start = int(numbered[sums.argmax()])
    return start, start + width


def attribution_method(classifier: Artifact) -> Record:
    """What the marks mean, and whose they are."""
    return {"method": METHOD, "precision": "fp32", "classifier": classifier.manifest.fingerprint}
