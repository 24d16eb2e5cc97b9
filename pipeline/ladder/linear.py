"""The rungs that scikit-learn solves: TF-IDF and naive Bayes features, each with logistic regression.

Both read the ids of the run, one word for each id, so that they see the tokens that every other rung sees.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from pipeline.ladder.fitting import WEIGHTS
from pipeline.ladder.rungs import NB_SVM, Rung
from pipeline.ladder.scoring import Ids, Splits, write_scores
from pipeline.making import StageOutcome
from pipeline.model.text_files import copy_text_files
from pipeline.report.baseline import INVERSE_REGULARIZATION, MAX_ITERATIONS, fit_features
from pipeline.text.ids import IdStore

Labels = NDArray[np.integer[Any]]
Probabilities = NDArray[np.float64]


class TfIdf:
    """The features of the baseline of every evaluation, and one regression for all classes."""

    def __init__(self, texts: list[str], label_ids: Labels) -> None:
        """Fit; DataError if no text has a token."""
        fitted = fit_features(texts)
        if fitted is None:
            raise DataError("The training documents hold no token.", "Correct the corpus.")
        self.vectorizer, matrix = fitted
        self.model = _regression(INVERSE_REGULARIZATION).fit(matrix, label_ids)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Everything that was fitted."""
        return {"idf": self.vectorizer.idf_, "weight": self.model.coef_, "bias": self.model.intercept_}

    def probabilities(self, texts: list[str]) -> Probabilities:
        """Of each class [documents, classes]."""
        found: Probabilities = self.model.predict_proba(self.vectorizer.transform(texts))
        return found


class NaiveBayesFeatures:
    """1- and 2-grams that are there or not, scaled by their log-count ratio: NB-SVM (Wang and Manning 2012).

    With logistic regression in place of the SVM, since evaluations want probabilities. Of more than two classes each
    has its own ratios against the rest and its own regression; their probabilities are brought to a sum of 1.
    """

    SMOOTHING = 1.0
    """Added to every count (Wang and Manning 2012, alpha)."""

    def __init__(self, texts: list[str], label_ids: Labels) -> None:
        """Fit; DataError if no text has a token."""
        self.vectorizer = CountVectorizer(ngram_range=(1, 2), binary=True)
        try:
            matrix = csr_matrix(self.vectorizer.fit_transform(texts), dtype=np.float64)
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
            raise DataError("The training documents hold no token.", "Correct the corpus.") from error
        n_classes = int(label_ids.max()) + 1
        positive = [label_ids == c for c in (range(n_classes) if n_classes > 2 else [1])]
        self.ratios = [self._ratio(matrix, mask) for mask in positive]
        self.models = [
            _regression(1.0).fit(matrix.multiply(ratio).tocsr(), mask)
            for ratio, mask in zip(self.ratios, positive, strict=True)
        ]

    def _ratio(self, matrix: csr_matrix, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        counts = [np.asarray(matrix[rows].sum(axis=0))[0] + self.SMOOTHING for rows in (mask, ~mask)]
        one, other = (count / count.sum() for count in counts)
        return np.log(one / other)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Everything that was fitted."""
        return {
            "ratio": np.stack(self.ratios),
            "weight": np.concatenate([model.coef_ for model in self.models]),
            "bias": np.concatenate([model.intercept_ for model in self.models]),
        }

    def probabilities(self, texts: list[str]) -> Probabilities:
        """Of each class [documents, classes]."""
        matrix = self.vectorizer.transform(texts)
        each = [
            model.predict_proba(matrix.multiply(ratio).tocsr())[:, 1]
            for ratio, model in zip(self.ratios, self.models, strict=True)
        ]
        found = np.stack([1 - each[0], each[0]] if len(each) == 1 else each, 1)
        return found / found.sum(1, keepdims=True)


def train(rung: Rung, ids: Artifact, splits: Splits, seed: int, work: Path) -> StageOutcome:
    """Fit `rung` on train, score it on test, and write weights, features, vocabulary, tokenizer and scores.

    `seed` is that of the accuracy's interval.
    """
    store = IdStore.open(ids)
    started = time.monotonic()
    kind = NaiveBayesFeatures if rung.name == NB_SVM else TfIdf
    model = kind(_texts(store, splits.train), store.label_ids[splits.train])
    train_s, started = time.monotonic() - started, time.monotonic()
    probabilities = model.probabilities(_texts(store, splits.test))
    predict_s, tensors = time.monotonic() - started, model.tensors()
    save_file(tensors, work / WEIGHTS)
    features = model.vectorizer.get_feature_names_out().tolist()
    (work / "features.json").write_text(json.dumps(features, indent=0) + "\n", encoding="utf-8")
    copy_text_files(ids.path, work)
    return StageOutcome(
        metrics={
            **write_scores(store, splits.test, probabilities, predict_s, seed=seed, work=work),
            "parameters": int(tensors["weight"].size + tensors["bias"].size),
            "train_s": round(train_s, 3),
            "train_documents": len(splits.train),
        },
        identity=dict(ids.manifest.identity),
    )


def _regression(inverse_regularization: float) -> LogisticRegression:
    return LogisticRegression(C=inverse_regularization, solver="lbfgs", max_iter=MAX_ITERATIONS)


def _texts(store: IdStore, documents: Ids) -> list[str]:
    """Each document as words t0, t1, ... for its ids: scikit-learn counts them as it counts any others."""
    return [" ".join(f"t{token}" for token in store.document(number)) for number in documents]
