"""How good a classifier is on documents it has never seen: pure functions on arrays.

Shapes: N documents, C classes. `label_ids` [N] are the true classes, `probabilities` [N, C] the predicted ones, with
columns in the order of the labels. The predicted class is the one of the highest probability.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix as count_confusions
from sklearn.metrics import log_loss as mean_log_loss
from sklearn.metrics import precision_recall_fscore_support

Ids = npt.NDArray[np.integer[Any]]
Probabilities = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
ROW_SUM_TOLERANCE = 0.02
"""How far a row may be from 1: bf16 keeps eight bits, so its softmax rounds that coarsely."""


def normalized(probabilities: npt.NDArray[np.floating[Any]]) -> Probabilities:
    """`probabilities` [N, C] as float64 with rows that sum to 1; only rounding is evened out.

    Raises ValueError if they are not finite, negative, or do not sum to 1 within ROW_SUM_TOLERANCE.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"probabilities have shape {rows.shape}, not [documents, classes]")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ValueError(f"probabilities of {np.count_nonzero(~finite):,} documents are not finite")
    if (rows < 0.0).any():
        raise ValueError("probabilities are negative")
    sums = rows.sum(axis=1, keepdims=True)
    if (np.abs(sums - 1.0) > ROW_SUM_TOLERANCE).any():
        raise ValueError(f"probabilities of a document sum to {sums.min():.4f} .. {sums.max():.4f}, not 1")
    evened: Probabilities = rows / sums
    return evened


def accuracy_interval(correct: Flags, samples: int, seed: int) -> dict[str, float]:
    """Accuracy of `correct` [N] with its 95 % percentile bootstrap interval (Efron 1979).

    Drawing N documents with replacement out of N, of which k are right, gives a number of right ones that is
    binomial (N, k / N). So the resampled accuracies are drawn from that law: the same bootstrap, without [samples, N]
    indices in memory. With all documents right or all wrong every resample is equal, and the interval has no width.

    Raises ValueError if there are no documents.
    """
    n = len(correct)
    if n == 0:
        raise ValueError("there are no documents to score")
    accuracy = int(np.count_nonzero(correct)) / n
    resampled = np.random.default_rng(seed).binomial(n, accuracy, size=samples) / n
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"accuracy": accuracy, "accuracy_low": float(low), "accuracy_high": float(high)}


def per_class(label_ids: Ids, predicted_ids: Ids, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of documents of every class, in the order of `labels`.

    A figure without a denominator is None: the recall of a class that no document has, the precision of one that was
    never predicted, the F1 of one that is neither.
    """
    columns = precision_recall_fscore_support(
        label_ids, predicted_ids, labels=np.arange(len(labels)), average=None, zero_division=np.nan
    )
    return [
        {
            "label": label,
            "precision": _defined(precision),
            "recall": _defined(recall),
            "f1": _defined(f1),
            "documents": int(support),
        }
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    ]


def macro_f1(classes: Sequence[dict[str, Any]]) -> float:
    """Mean F1 over the classes that occur among the true or the predicted ones (scikit-learn's default)."""
    return float(np.mean([row["f1"] for row in classes if row["f1"] is not None]))


def confusion_matrix(label_ids: Ids, predicted_ids: Ids, n_classes: int) -> list[list[int]]:
    """Counts [C, C]: row = true class, column = predicted class."""
    matrix: list[list[int]] = count_confusions(label_ids, predicted_ids, labels=np.arange(n_classes)).tolist()
    return matrix


def log_loss(label_ids: Ids, probabilities: Probabilities) -> float:
    """Mean negative natural logarithm of the probability of the true class; rows must sum to 1."""
    return float(mean_log_loss(label_ids, probabilities, labels=np.arange(probabilities.shape[1])))


def calibration(correct: Flags, confidence: Probabilities, bins: int) -> tuple[float, list[dict[str, Any]]]:
    """Expected calibration error and the bins of a reliability diagram (Guo et al. 2017, sec. 2).

    `confidence` [N] is the probability of the predicted class. Bins are equally wide and closed above. The error is
    the mean distance between accuracy and confidence of a bin, weighted by its documents. Empty bins have None.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    bin_ids = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(bin_ids, minlength=bins)
    confidence_sums = np.bincount(bin_ids, weights=confidence, minlength=bins)
    correct_counts = np.bincount(bin_ids, weights=correct, minlength=bins)
    error = float(np.abs(correct_counts - confidence_sums).sum() / len(confidence))
    rows = [
        {
            "above": float(edges[i]),
            "up_to": float(edges[i + 1]),
            "documents": int(counts[i]),
            "confidence": float(confidence_sums[i] / counts[i]) if counts[i] else None,
            "accuracy": float(correct_counts[i] / counts[i]) if counts[i] else None,
        }
        for i in range(bins)
    ]
    return error, rows


def majority_class(train_label_ids: Ids, label_ids: Ids) -> tuple[int, float]:
    """The class most frequent in train (the first of equals) and the accuracy of always predicting it on test."""
    majority = int(np.bincount(train_label_ids).argmax())
    return majority, float(np.mean(label_ids == majority))


def discordance(correct: Flags, other_correct: Flags) -> tuple[int, int, float]:
    """McNemar's exact test of two classifiers on the same documents: is one right more often than chance explains?

    How many documents only the one gets right, only the other, and the two-sided p. Only these documents say anything;
    without a difference each is as likely as the other.
    """
    only_first = int(np.count_nonzero(correct & ~other_correct))
    only_second = int(np.count_nonzero(~correct & other_correct))
    discordant = only_first + only_second
    return only_first, only_second, float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def mcnemar(correct: Flags, baseline_correct: Flags) -> dict[str, Any]:
    """`discordance` of a classifier and the baseline, by name."""
    ours, theirs, p = discordance(correct, baseline_correct)
    return {"only_classifier_right": ours, "only_baseline_right": theirs, "p": p}


def score(
    label_ids: Ids, probabilities: Probabilities, labels: Sequence[str], *, bootstrap_samples: int,
    calibration_bins: int, seed: int,
) -> dict[str, Any]:
    """Every figure of one classifier as JSON-ready values; `probabilities` as `normalized` returns them.

    Raises ValueError if there are no documents.
    """
    predicted_ids = probabilities.argmax(axis=1)
    correct = predicted_ids == label_ids
    interval = accuracy_interval(correct, bootstrap_samples, seed)
    classes = per_class(label_ids, predicted_ids, labels)
    confidence = probabilities.max(axis=1)
    error, bins = calibration(correct, confidence, calibration_bins)
    return {
        **interval,
        "macro_f1": macro_f1(classes),
        "log_loss": log_loss(label_ids, probabilities),
        "calibration_error": error,
        "mean_confidence": float(confidence.mean()),
        "per_class": classes,
        "confusion_matrix": confusion_matrix(label_ids, predicted_ids, len(labels)),
        "calibration_bins": bins,
    }


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
