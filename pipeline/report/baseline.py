"""The bar a neural classifier has to clear: TF-IDF of words and word pairs, and logistic regression.

Wang and Manning (2012) showed how strong linear models on word pairs are for reviews.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

BASELINE_NAME = "TF-IDF + logistic regression"
INVERSE_REGULARIZATION = 10.0
MAX_ITERATIONS = 10_000
"""Far more than lbfgs needs; it stops by itself when it has converged."""


def fit_and_predict(
    train_texts: Sequence[str], train_label_ids: npt.NDArray[np.integer[Any]], test_texts: Sequence[str],
    n_classes: int,
) -> npt.NDArray[np.float64]:
    """Probabilities [test documents, n_classes] of `test_texts` after fitting on the train documents only.

    TF-IDF has 1- and 2-grams with sublinear counts; an n-gram must be in two train documents, unless none is. Where
    nothing can be learned (no words, or one class), the answer is the class frequencies of train.
    """
    features = fit_features(train_texts)
    model: Any
    if features is None or len(np.unique(train_label_ids)) == 1:
        model = DummyClassifier(strategy="prior").fit(np.zeros((len(train_texts), 1)), train_label_ids)
        found = model.predict_proba(np.zeros((len(test_texts), 1)))
    else:
        vectorizer, train_matrix = features
        model = LogisticRegression(C=INVERSE_REGULARIZATION, solver="lbfgs", max_iter=MAX_ITERATIONS)
        model.fit(train_matrix, train_label_ids)
        found = model.predict_proba(vectorizer.transform(test_texts))
    probabilities = np.zeros((len(test_texts), n_classes))
    probabilities[:, model.classes_] = found
    return probabilities


def fit_features(texts: Sequence[str]) -> tuple[TfidfVectorizer, Any] | None:
    """The fitted TF-IDF vectorizer and the matrix [documents, n-grams], or None if no text has a word."""
    for min_df in (2, 1):
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=min_df)
        try:
            return vectorizer, vectorizer.fit_transform(texts)
        except ValueError as error:
            # "max_df corresponds to < documents than min_df" for one text; "no terms remain"; "empty vocabulary"
            if not any(reason in str(error) for reason in ("max_df", "no terms remain", "empty vocabulary")):
                raise
    return None
