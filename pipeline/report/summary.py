"""The result table at the end of a run: plain text, for terminals and batch logs. Imports nothing heavy."""

from collections.abc import Sequence
from typing import Any

from pipeline.settings import PublishedSettings

Metrics = dict[str, Any]


def percent(share: float) -> str:
    """`0.7831` becomes `78.31 %`."""
    return f"{100 * share:.2f} %"


def interval(metrics: Metrics) -> str:
    """The 95 % interval of an accuracy: `76.70 to 79.90 %`."""
    return f"{100 * metrics['accuracy_low']:.2f} to {percent(metrics['accuracy_high'])}"


def result_table(
    evaluation_metrics: Metrics, lm_metrics: Metrics | None, published: PublishedSettings | None = None
) -> str:
    """The classifier beside what it has to beat, then the language model, in aligned columns.

    Both arguments are the `metrics` of sealed manifests: those of evaluate_classifier and those of finetune_lm
    (`perplexity`, `accuracy`, `bits_per_character`; what is absent or None is left out).
    `published` is what others reached, as the recipe tells it.
    """
    rows = [["Test split", "accuracy", "95 % interval"]]
    rows.append(["majority class", percent(evaluation_metrics["majority_accuracy"]), ""])
    if "baseline" in evaluation_metrics:
        baseline = evaluation_metrics["baseline"]
        rows.append([baseline["name"], percent(baseline["accuracy"]), interval(baseline)])
    rows.append(["this classifier", percent(evaluation_metrics["accuracy"]), interval(evaluation_metrics)])
    if published is not None and published.accuracy is not None:
        rows.append(["published", percent(published.accuracy), ""])
    lines = [*_aligned(rows), f"{evaluation_metrics['test_documents']:,} test documents"]
    if published is not None and published.accuracy is not None:
        points = 100 * (evaluation_metrics["accuracy"] - published.accuracy)
        lines.append(f"{points:+.2f} points from what was published: {published.source}")
    if evaluation_metrics["transductive"]:
        lines.append("Transductive: the language model has read the test documents' text.")
    if lm_metrics is not None:
        lines += ["", *_aligned(_language_model_rows(lm_metrics))]
    return "\n".join(lines)


def _language_model_rows(metrics: Metrics) -> list[list[str]]:
    rows = [["Language model", "validation"]]
    if metrics.get("perplexity") is not None:
        rows.append(["perplexity", f"{metrics['perplexity']:.2f}"])
    if metrics.get("accuracy") is not None:
        rows.append(["next-token accuracy", percent(metrics["accuracy"])])
    if metrics.get("bits_per_character") is not None:
        rows.append(["bits per character", f"{metrics['bits_per_character']:.3f}"])
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text with the first column flush left and the others flush right, a rule under the first row."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]
