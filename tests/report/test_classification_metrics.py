"""pipeline.report.metrics: hand-computed values, agreement with scikit-learn, properties."""

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from pipeline.report import metrics

LABELS = ["bad", "good"]


def one_hot(predicted: list[int], confidence: float, n_classes: int) -> np.ndarray:
    rest = (1 - confidence) / (n_classes - 1)
    probabilities = np.full((len(predicted), n_classes), rest)
    probabilities[np.arange(len(predicted)), predicted] = confidence
    return probabilities


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """True classes [N] and probabilities [N, C] of a classifier that knows a little, or nothing."""
    n_classes, n = draw(st.integers(2, 19)), draw(st.integers(1, 200))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    label_ids = random.integers(n_classes, size=n)
    logits = random.normal(size=(n, n_classes)) * draw(st.sampled_from([0.0, 0.1, 3.0, 50.0]))
    logits[np.arange(n), label_ids] += draw(st.sampled_from([0.0, 1.0, 100.0]))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return label_ids, weights / weights.sum(axis=1, keepdims=True)


def score(label_ids: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> dict:
    return metrics.score(label_ids, probabilities, labels, bootstrap_samples=200, calibration_bins=15, seed=1)


def test_values_computed_by_hand() -> None:
    label_ids = np.array([0, 0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.65, 0.35]])
    result = metrics.score(label_ids, probabilities, LABELS, bootstrap_samples=1000, calibration_bins=2, seed=0)
    assert result["accuracy"] == 3 / 5
    assert type(result["accuracy"]) is float  # as JSON has it, not numpy's
    assert result["confusion_matrix"] == [[2, 1], [1, 1]]
    bad, good = result["per_class"]
    assert bad == {"label": "bad", "precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3), "documents": 3}
    assert good == {"label": "good", "precision": 0.5, "recall": 0.5, "f1": 0.5, "documents": 2}
    assert result["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert result["log_loss"] == pytest.approx(-math.log(0.9 * 0.8 * 0.3 * 0.6 * 0.35) / 5)
    # All five confidences lie in the upper bin: mean 0.73, accuracy 0.6.
    assert result["calibration_error"] == pytest.approx(0.13)
    assert result["mean_confidence"] == pytest.approx(0.73)
    assert result["calibration_bins"] == [
        {"above": 0.0, "up_to": 0.5, "documents": 0, "confidence": None, "accuracy": None},
        {"above": 0.5, "up_to": 1.0, "documents": 5, "confidence": pytest.approx(0.73), "accuracy": pytest.approx(0.6)},
    ]


@pytest.mark.parametrize(
    ("confidence", "bin_number"), [(0.0, 0), (0.25, 0), (0.2501, 1), (0.5, 1), (0.75, 2), (1.0, 3)]
)
def test_calibration_bins_are_closed_above(confidence: float, bin_number: int) -> None:
    _, rows = metrics.calibration(np.array([True]), np.array([confidence]), 4)
    assert [row["documents"] for row in rows] == [int(i == bin_number) for i in range(4)]


def test_interval_is_that_of_scipys_bootstrap() -> None:
    correct = np.random.default_rng(3).random(400) < 0.8
    ours = metrics.accuracy_interval(correct, 20_000, seed=5)
    scipys = bootstrap(
        (correct,), np.mean, n_resamples=20_000, batch=1000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert ours["accuracy"] == correct.mean()
    assert ours["accuracy_low"] == pytest.approx(scipys.low, abs=1 / 400)
    assert ours["accuracy_high"] == pytest.approx(scipys.high, abs=1 / 400)
    assert ours["accuracy_high"] - ours["accuracy_low"] == pytest.approx(2 * 1.96 * correct.std() / 20, abs=0.01)


def test_interval_is_repeatable_and_follows_the_seed() -> None:
    correct = np.arange(10_000) % 3 == 0
    assert metrics.accuracy_interval(correct, 500, 7) == metrics.accuracy_interval(correct, 500, 7)
    assert metrics.accuracy_interval(correct, 500, 7) != metrics.accuracy_interval(correct, 500, 8)


def test_interval_of_one_document_and_of_none() -> None:
    one = metrics.accuracy_interval(np.array([True]), 100, 0)
    assert one == {"accuracy": 1.0, "accuracy_low": 1.0, "accuracy_high": 1.0}
    with pytest.raises(ValueError, match="there are no documents to score"):
        metrics.accuracy_interval(np.array([], dtype=bool), 100, 0)


def test_interval_of_a_large_test_split_needs_no_index_matrix() -> None:
    import tracemalloc

    correct = np.arange(25_000) % 10 != 0
    tracemalloc.start()
    metrics.accuracy_interval(correct, 2000, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_classes_absent_from_test_have_no_figures() -> None:
    labels = ["a", "b", "c", "d"]  # b occurs nowhere, c is only predicted, d is only true
    result = score(np.array([0, 0, 0, 3]), one_hot([0, 0, 2, 0], 0.7, 4), labels)
    by_label = {row["label"]: row for row in result["per_class"]}
    assert by_label["b"] == {"label": "b", "precision": None, "recall": None, "f1": None, "documents": 0}
    assert by_label["c"] == {"label": "c", "precision": 0.0, "recall": None, "f1": 0.0, "documents": 0}
    assert by_label["d"] == {"label": "d", "precision": None, "recall": 0.0, "f1": 0.0, "documents": 1}
    assert result["macro_f1"] == pytest.approx((2 / 3 + 0 + 0) / 3)


@given(scored())
def test_agrees_with_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    label_ids, probabilities = case
    predicted = probabilities.argmax(axis=1)
    result = score(label_ids, probabilities, [str(i) for i in range(probabilities.shape[1])])
    assert result["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(label_ids, predicted))
    assert result["macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(label_ids, predicted, average="macro", zero_division=0)
    )
    own_loss = -np.log(np.clip(probabilities[np.arange(len(label_ids)), label_ids], np.finfo(float).eps, 1)).mean()
    assert result["log_loss"] == pytest.approx(own_loss, abs=1e-9)
    assert np.trace(result["confusion_matrix"]) == np.count_nonzero(predicted == label_ids)
    assert np.sum(result["confusion_matrix"]) == len(label_ids)
    assert np.sum(result["confusion_matrix"], axis=1).tolist() == [row["documents"] for row in result["per_class"]]


@given(scored())
def test_figures_are_within_their_bounds(case: tuple[np.ndarray, np.ndarray]) -> None:
    label_ids, probabilities = case
    result = score(label_ids, probabilities, [str(i) for i in range(probabilities.shape[1])])
    assert 0 <= result["accuracy_low"] <= result["accuracy"] <= result["accuracy_high"] <= 1
    assert 0 <= result["calibration_error"] <= 1
    assert abs(result["mean_confidence"] - result["accuracy"]) <= result["calibration_error"] + 1e-9
    assert sum(row["documents"] for row in result["calibration_bins"]) == len(label_ids)


@given(st.integers(2, 12), st.integers(1, 50))
def test_perfect_predictor(n_classes: int, n: int) -> None:
    label_ids = np.arange(n) % n_classes
    result = score(label_ids, np.eye(n_classes)[label_ids], [str(i) for i in range(n_classes)])
    assert (result["accuracy"], result["macro_f1"], result["calibration_error"]) == (1.0, 1.0, 0.0)
    assert result["log_loss"] == pytest.approx(0.0, abs=1e-12)


def test_random_predictor() -> None:
    random = np.random.default_rng(0)
    label_ids = random.integers(4, size=20_000)
    probabilities = random.dirichlet(np.ones(4), size=20_000)
    result = score(label_ids, probabilities, list("abcd"))
    assert result["accuracy"] == pytest.approx(0.25, abs=0.015)
    assert result["calibration_error"] == pytest.approx(result["mean_confidence"] - 0.25, abs=0.02)


def test_majority_class_is_that_of_train() -> None:
    assert metrics.majority_class(np.array([2, 2, 0, 1]), np.array([0, 0, 0, 2])) == (2, 0.25)
    assert metrics.majority_class(np.array([1, 0, 1, 0]), np.array([0, 0, 1])) == (0, pytest.approx(2 / 3))


def test_mcnemar() -> None:
    ours = np.array([True] * 9 + [False] * 1 + [True] * 5)
    other = np.array([False] * 9 + [True] * 1 + [True] * 5)
    # Both tails of ten fair throws with at most one head: 2 * (1 + 10) / 2**10.
    assert metrics.mcnemar(ours, other) == {
        "only_classifier_right": 9, "only_baseline_right": 1, "p": pytest.approx(22 / 1024)
    }
    assert metrics.mcnemar(ours, ours)["p"] == 1.0


def test_rounding_of_low_precision_is_evened_out() -> None:
    rows = metrics.normalized(np.array([[0.5, 0.504], [0.25, 0.75]], dtype=np.float32))
    assert rows.dtype == np.float64
    assert rows.sum(axis=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-15)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, math.nan]], "probabilities of 1 documents are not finite"),
        ([[1.5, -0.5]], "probabilities are negative"),
        ([[0.5, 0.1]], "sum to 0.6000"),
        ([0.5, 0.5], r"shape \(2,\), not \[documents, classes\]"),
    ],
)
def test_what_is_no_probability_is_refused(rows: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.normalized(np.array(rows))
