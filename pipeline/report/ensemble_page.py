"""ensemble.md: the content of an ensemble's metrics.json, for people. Every number comes out of that dictionary."""

from pipeline.report.evaluation_page import (
    Metrics,
    by_class_and_confidence,
    escape,
    figures,
    headline,
    table,
    warnings,
)
from pipeline.report.summary import other_protocol, percent, with_protocol


def render(metrics: Metrics) -> str:
    """The ensemble of `metrics` (the content of metrics.json) as Markdown."""
    sections = [
        f"# Ensemble of {len(metrics['members'])}\n\n{headline(metrics)}",
        *(f"> **Note.** {warning}" for warning in warnings(metrics)),
        _comparison(metrics),
        f"## Is the difference real?\n\n{_significance(metrics)}",
        f"## Members\n\n{_members(metrics)}",
        *by_class_and_confidence(metrics),
        f"## Made from\n\n{_lineage(metrics)}",
    ]
    return "\n\n".join(sections) + "\n"


def _comparison(metrics: Metrics) -> str:
    rows = [["majority class", percent(metrics["majority_accuracy"]), "", "", "", ""]]
    if "baseline" in metrics:
        rows.append([metrics["baseline"]["name"], *figures(metrics["baseline"])])
    rows += [[escape(member["name"]), *figures(member)] for member in metrics["members"]]
    rows.append([with_protocol("**ensemble**", metrics["protocol"]), *figures(metrics)])
    rows += [[escape(name), *figures(other)] for name, other in other_protocol(metrics)]
    return (
        table(["", "accuracy", "95 % interval", "macro F1", "log loss", "calibration error"], rows)
        + "\n\nThe ensemble's probabilities are the mean of its members', each with the same weight. Its interval "
        f"comes from {metrics['bootstrap_samples']:,} bootstrap resamples of the test documents; the others are those "
        "of their own evaluations."
    )


def _significance(metrics: Metrics) -> str:
    rows = []
    if "mcnemar" in metrics:
        against = metrics["mcnemar"]
        rows.append(_pair("ensemble", metrics["baseline"]["name"], *against.values()))
    for member in metrics["members"]:
        name = escape(member["name"])
        best = f"{name} (best member)" if member["name"] == metrics["best_member"] else name
        rows.append(_pair("ensemble", best, *member["against_ensemble"].values()))
    for member in metrics["members"]:
        if "mcnemar" in member:
            rows.append(_pair(escape(member["name"]), metrics["baseline"]["name"], *member["mcnemar"].values()))
    return (
        "McNemar's exact test counts the documents that only one of two classifiers gets right.\n\n"
        + table(["pair", "only the first right", "only the second right", "p"], rows)
        + "\n\nThe best member is the best on these test documents."
    )


def _pair(first: str, second: str, only_first: int, only_second: int, p: float) -> list[str]:
    return [f"{first} and {second}", f"{only_first:,}", f"{only_second:,}", f"{p:.2g}"]


def _members(metrics: Metrics) -> str:
    return table(
        ["member", "reads", "tokenizer", "vocabulary", "seed"],
        [
            [escape(m["name"]), m["direction"], m["tokenizer"], f"{m['vocabulary']:,}",
             "n/a" if m["seed"] is None else str(m["seed"])]
            for m in metrics["members"]
        ],
    )


def _lineage(metrics: Metrics) -> str:
    rows = [[escape(name), f"`{value[:12]}`"] for name, value in metrics["lineage"].items()]
    return f"{table(['artifact', 'fingerprint'], rows)}\n\nSeed of the bootstrap: {metrics['seed']}."
