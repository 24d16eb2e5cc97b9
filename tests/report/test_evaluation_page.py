"""pipeline.report.evaluation_page: Markdown that says what metrics.json says."""

import re

import numpy as np
import pytest

from pipeline.report import metrics as scores
from pipeline.report.evaluation_page import EXCERPT_CHARACTERS, escape, excerpt, render

SCORING = {"bootstrap_samples": 300, "calibration_bins": 10, "seed": 4}


def evaluation(n_classes: int = 3, baseline: bool = True) -> dict:
    random = np.random.default_rng(n_classes)
    label_ids = random.integers(n_classes, size=400)
    labels = [f"label_{i}" for i in range(n_classes)]

    def predictions(skill: float) -> np.ndarray:
        weights = np.exp(random.normal(size=(400, n_classes)) + skill * np.eye(n_classes)[label_ids])
        return weights / weights.sum(axis=1, keepdims=True)

    ours, theirs = predictions(2.5), predictions(1.5)
    result = {
        **scores.score(label_ids, ours, labels, **SCORING), "labels": labels, "test_documents": 400,
        "majority_label": "label_1", "majority_accuracy": float(np.mean(label_ids == 1)), "bootstrap_samples": 300,
        "seed": 4, "device": "cpu", "precision": {"requested": "auto", "effective": "bf16"},
        "lineage": {"corpus": "0123456789abcdef" * 4, "ids": "f" * 64, "classifier": "a1" * 32, "lm": "b2" * 32},
        "mistakes": [
            {"doc_id": "test/1_2.txt", "label": "label_0", "predicted": "label_1", "probability": 0.98765,
             "excerpt": "what a *film* | <b>bold</b>"},
        ],
        "protocol": {
            "transductive": False, "validated_on": "valid", "language_model_known": True,
            "classifier_trained_on_this_split": True,
            "documents": {"train": 1600, "unlabelled": 0, "valid": 177, "test": 403}, "test_documents_without_label": 3,
            "duplicates": {"duplicates across splits": 7},
        },
    }
    if baseline:
        result["baseline"] = {"name": "TF-IDF", **scores.score(label_ids, theirs, labels, **SCORING)}
        result["mcnemar"] = scores.mcnemar(ours.argmax(axis=1) == label_ids, theirs.argmax(axis=1) == label_ids)
    return result


def table_under(page: str, heading: str) -> list[list[str]]:
    """Rows of the first table after `heading`, without header and rule."""
    lines = page[page.index(heading) :].split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def share(cell: str) -> float:
    return float(cell.removesuffix(" %")) / 100


def test_every_number_of_the_tables_equals_the_json() -> None:
    metrics = evaluation()
    page = render(metrics)
    majority, baseline, ours = table_under(page, "# Evaluation")
    assert share(majority[1]) == pytest.approx(metrics["majority_accuracy"], abs=5e-5)
    for row, figures in ((baseline, metrics["baseline"]), (ours, metrics)):
        low, high = row[2].split(" to ")
        assert [share(row[1]), share(low), share(high)] == [
            pytest.approx(figures[key], abs=5.1e-5) for key in ("accuracy", "accuracy_low", "accuracy_high")
        ]
        assert [float(cell) for cell in row[3:]] == [
            pytest.approx(figures[key], abs=5.1e-5) for key in ("macro_f1", "log_loss", "calibration_error")
        ]
    for row, figures in zip(table_under(page, "## Classes"), metrics["per_class"], strict=True):
        assert row[0].replace("\\", "") == figures["label"]
        assert [float(cell) for cell in row[1:]] == [
            pytest.approx(figures[key], abs=5.1e-5) for key in ("precision", "recall", "f1", "documents")
        ]
    matrix = [[int(cell) for cell in row[1:]] for row in table_under(page, "## Confusion")]
    assert matrix == metrics["confusion_matrix"]
    filled = [row for row in metrics["calibration_bins"] if row["documents"]]
    for row, figures in zip(table_under(page, "## Calibration"), filled, strict=True):
        assert [float(cell) for cell in row[1:]] == [
            pytest.approx(figures[key], abs=5.1e-5) for key in ("documents", "confidence", "accuracy")
        ]


def test_every_number_of_the_sentences_equals_the_json() -> None:
    metrics = evaluation()
    page = render(metrics)

    def numbers(pattern: str) -> list[float]:
        match = re.search(pattern, page)
        assert match, pattern
        return [float(group.replace(",", "")) for group in match.groups()]

    assert numbers(r"\*\*Accuracy (\S+) %\*\* \(95 % interval (\S+) to (\S+) %\) on (\d+) test documents") == [
        pytest.approx(value, abs=0.0051)
        for value in (100 * metrics["accuracy"], 100 * metrics["accuracy_low"], 100 * metrics["accuracy_high"], 400)
    ]
    assert numbers(r'TF-IDF reaches (\S+) % and always answering "label\\_1" (\S+) %') == [
        pytest.approx(100 * metrics["baseline"]["accuracy"], abs=0.0051),
        pytest.approx(100 * metrics["majority_accuracy"], abs=0.0051),
    ]
    mcnemar = r"alone is right on (\S+) documents, the baseline alone on (\S+) \(McNemar's exact test: p = (\S+)\)"
    assert numbers(mcnemar) == [
        metrics["mcnemar"]["only_classifier_right"], metrics["mcnemar"]["only_baseline_right"],
        pytest.approx(metrics["mcnemar"]["p"], rel=0.06),
    ]
    assert numbers(r"Intervals come from (\S+) bootstrap resamples") == [300]
    assert numbers(r"error (\S+) over (\d+) bins: the mean confidence is (\S+) %") == [
        pytest.approx(metrics["calibration_error"], abs=5.1e-5), 10,
        pytest.approx(100 * metrics["mean_confidence"], abs=0.0051),
    ]
    assert numbers(r"train (\S+), unlabelled (\S+), valid (\S+), test (\S+)\.\n") == [1600, 0, 177, 403]
    assert numbers(r"(\d+) test documents have no label") == [3]
    assert numbers(r"duplicates across splits: (\d+)") == [7]
    assert numbers(r"with probability (\S+):") == [pytest.approx(0.98765, abs=5.1e-5)]
    assert "| corpus | `0123456789ab` |" in page
    assert "Predicted on cpu in bf16 (asked for: auto)" in page


def test_without_baseline_nothing_is_compared() -> None:
    page = render(evaluation(baseline=False))
    assert [row[0] for row in table_under(page, "# Evaluation")] == ["majority class", "this classifier"]
    assert "McNemar" not in page


def test_many_classes_list_the_largest_confusions() -> None:
    metrics = evaluation(n_classes=30)
    rows = table_under(render(metrics), "## Confusion")
    assert len(rows) == 20
    for true, predicted, count in rows:
        i, j = (metrics["labels"].index(cell.replace("\\", "")) for cell in (true, predicted))
        assert metrics["confusion_matrix"][i][j] == int(count)
    counts = [int(row[2]) for row in rows]
    off_diagonal = np.array(metrics["confusion_matrix"]) * (1 - np.eye(30, dtype=int))
    assert counts == sorted(off_diagonal.ravel().tolist(), reverse=True)[:20]


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"transductive": True}, "These numbers are transductive: the language model has read the text of the test"),
        ({"validated_on": "test"}, "These numbers follow the published protocol: the test documents, with their"),
        ({"language_model_known": False}, "The classifier does not say what its language model has read"),
        ({"classifier_trained_on_this_split": False}, "The classifier was trained on another set of documents"),
    ],
)
def test_warnings_appear_only_when_due(change: dict, warning: str) -> None:
    metrics = evaluation()
    assert "**Note.**" not in render(metrics)
    metrics["protocol"] |= change
    assert f"> **Note.** {warning}" in render(metrics)


def test_few_documents_are_warned_about() -> None:
    metrics = evaluation() | {"test_documents": 5}
    assert "> **Note.** Too few test documents" in render(metrics)


def test_text_of_documents_cannot_become_markup() -> None:
    page = render(evaluation())
    assert r"what a \*film\* \| \<b\>bold\</b\>" in page
    assert escape("a\nb\x00c") == "a b c"
    assert escape("[x](http://y) `z` &amp;") == r"\[x\](http\://y) \`z\` \&amp;"


def test_excerpt_is_one_short_line() -> None:
    assert excerpt("a\n\n  b\tc") == "a b c"
    assert excerpt("x" * 200) == "x" * 200
    long = excerpt("word " * 3_000_000)
    assert len(long) <= EXCERPT_CHARACTERS
    assert long.endswith("...")
