"""The result table at the end of a run: plain text, for terminals and batch logs. Imports nothing heavy."""

from collections.abc import Sequence
from typing import Any

from pipeline.protocol import protocol_of, what_was_read
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
    rows = [["Test split", "accuracy", "95 % interval"], *to_beat(evaluation_metrics)]
    name = with_protocol("this classifier", evaluation_metrics)
    rows.append([name, percent(evaluation_metrics["accuracy"]), interval(evaluation_metrics)])
    rows += [[name, percent(other["accuracy"]), interval(other)] for name, other in other_protocol(evaluation_metrics)]
    if published is not None and published.accuracy is not None:
        rows.append(["published", percent(published.accuracy), ""])
    lines = [*aligned(rows), f"{evaluation_metrics['test_documents']:,} test documents"]
    if published is not None and published.accuracy is not None:
        points = 100 * (evaluation_metrics["accuracy"] - published.accuracy)
        lines.append(f"{points:+.2f} points from what was published: {published.source}")
    lines += notes(evaluation_metrics)
    if lm_metrics is not None:
        lines += ["", *aligned(_language_model_rows(lm_metrics))]
    return "\n".join(lines)


def ensemble_table(metrics: Metrics) -> str:
    """An ensemble beside its members and what they have to beat; `metrics` are those of its sealed manifest."""
    rows = [["Test split", "accuracy", "95 % interval"], *to_beat(metrics)]
    rows += [[name, percent(member["accuracy"]), interval(member)] for name, member in metrics["members"].items()]
    rows.append([with_protocol("ensemble", metrics), percent(metrics["accuracy"]), interval(metrics)])
    rows += [[name, percent(other["accuracy"]), interval(other)] for name, other in other_protocol(metrics)]
    lines = [*aligned(rows), f"{metrics['test_documents']:,} test documents"]
    best = metrics["best_member"]
    if "mcnemar_p" in metrics:
        lines.append(f"McNemar, ensemble and {metrics['baseline']['name']}: p = {metrics['mcnemar_p']:.2g}")
    lines.append(f"McNemar, ensemble and {best} (best member): p = {metrics['members'][best]['mcnemar_p']:.2g}")
    return "\n".join([*lines, *notes(metrics)])


def to_beat(metrics: Metrics) -> list[list[str]]:
    """Name, accuracy and interval of the majority class, and of the baseline if there is one."""
    rows = [["majority class", percent(metrics["majority_accuracy"]), ""]]
    if "baseline" in metrics:
        baseline = metrics["baseline"]
        rows.append([baseline["name"], percent(baseline["accuracy"]), interval(baseline)])
    return rows


def with_protocol(name: str, metrics: Metrics) -> str:
    """`name`, with the protocol in brackets where that is not the honest one."""
    return name if protocol_of(metrics) == "honest" else f"{name} ({protocol_of(metrics)} protocol)"


def other_protocol(metrics: Metrics) -> list[tuple[str, Metrics]]:
    """Name and figures of the same run under the other protocol, if that was evaluated too: one entry or none."""
    other = metrics.get("other_protocol")
    return [] if other is None else [(f"run {other['run']} ({other['protocol']} protocol)", other)]


def notes(metrics: Metrics) -> list[str]:
    """What a reader of the numbers has to know."""
    return [f"Published protocol: {'; '.join(read)}." for read in [what_was_read(metrics)] if read]


def _language_model_rows(metrics: Metrics) -> list[list[str]]:
    rows = [[with_protocol("Language model", metrics), "validation"]]
    if metrics.get("perplexity") is not None:
        rows.append(["perplexity", f"{metrics['perplexity']:.2f}"])
    if metrics.get("accuracy") is not None:
        rows.append(["next-token accuracy", percent(metrics["accuracy"])])
    if metrics.get("bits_per_character") is not None:
        rows.append(["bits per character", f"{metrics['bits_per_character']:.3f}"])
    return rows


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Rows of text with the first `left` columns flush left and the others flush right, a rule under the first row."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]
