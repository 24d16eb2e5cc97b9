"""evaluation.md: the content of metrics.json, for people. Every number comes out of that dictionary."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipeline.protocol import protocol_of
from pipeline.report.summary import interval, other_protocol, percent, with_protocol

Metrics = dict[str, Any]

MATRIX_CLASSES = 20
"""More classes than this make a table nobody reads: then the largest confusions are listed."""
LISTED_CONFUSIONS = 20
EXCERPT_CHARACTERS = 200
FEW_DOCUMENTS = 100


def excerpt(text: str) -> str:
    """The first EXCERPT_CHARACTERS of `text` in one line."""
    line = " ".join(text[: 10 * EXCERPT_CHARACTERS].split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 3].rstrip() + "..."


def escape(text: str) -> str:
    """`text` as literal text inside a line of Markdown: no markup, HTML, table cell, link or control character.

    An address stays readable, but GitHub does not make it a link by itself.
    """
    printable = "".join(c if c.isprintable() else " " for c in text).strip()
    literal = re.sub(r"([\\`*_{}\[\]<>|&~$#!])", r"\\\1", printable)
    literal = re.sub(r"(?i)(?<=[a-z]):(?=//)|(?<=www)\.", r"\\\g<0>", literal)
    return re.sub(r"^(?:(?=[-+=])|(\d+)(?=[.)]))", r"\1\\", literal)  # what makes lists and rules at a line's start


def render(metrics: Metrics) -> str:
    """The evaluation of `metrics` (the content of metrics.json) as Markdown."""
    sections = [
        f"# Evaluation\n\n{headline(metrics)}",
        *(f"> **Note.** {warning}" for warning in warnings(metrics)),
        comparison(metrics),
        *by_class_and_confidence(metrics),
        f"## Split protocol\n\n{split_protocol(metrics['protocol'])}",
        f"## Most confident mistakes\n\n{_mistakes(metrics['mistakes'])}",
        f"## Made from\n\n{_lineage(metrics)}",
    ]
    return "\n\n".join(sections) + "\n"


def by_class_and_confidence(metrics: Metrics) -> list[str]:
    """The sections on classes, confusions and calibration."""
    return [
        f"## Classes\n\n{classes(metrics)}",
        f"## Confusion\n\n{_confusion(metrics)}",
        f"## Calibration\n\n{_calibration(metrics)}",
    ]


def headline(metrics: Metrics) -> str:
    """Accuracy with its interval, beside what every classifier has to beat."""
    other = "".join(
        f" The {escape(name)} reaches {percent(found['accuracy'])} (95 % interval {interval(found)})."
        for name, found in other_protocol(metrics)
    )
    baseline, honest = metrics.get("baseline"), protocol_of(metrics["protocol"]) == "honest"
    beside = f"{baseline['name']} reaches {percent(baseline['accuracy'])} and " if baseline else ""
    return (
        f"**Accuracy {percent(metrics['accuracy'])}** (95 % interval {interval(metrics)}"
        f"{'' if honest else ', published protocol'}) on "
        f"{metrics['test_documents']:,} test documents. On the same documents {beside}always answering "
        f'"{escape(metrics["majority_label"])}" {percent(metrics["majority_accuracy"])}.{other}'
    )


def warnings(metrics: Metrics) -> Iterable[str]:
    """What must be known before the figures of `metrics` are compared with others."""
    protocol = metrics["protocol"]
    elsewhere = protocol.get("trained_elsewhere")
    if elsewhere and protocol_of(protocol) == "published":
        yield (
            "The classifier follows the published protocol on the corpus it was trained with: documents it was tested "
            "on there had a part in its making."
        )
    if protocol["transductive"] and not elsewhere:
        yield (
            "These numbers are transductive: the language model has read the text of the test documents (without "
            "their labels). Do not compare them with numbers of an honest split."
        )
    if protocol.get("validated_on") == "test" and not elsewhere:
        yield (
            "These numbers follow the published protocol: the test documents, with their labels, chose the "
            "classifier's epoch, so they are better than on documents that nobody has looked at. Do not compare them "
            "with numbers of an honest split."
        )
    if not protocol["language_model_known"]:
        yield "The classifier does not say what its language model has read, so that could not be checked."
    if not protocol["classifier_trained_on_this_split"]:
        yield (
            "The classifier was trained on another set of documents than the train split here. Whether these test "
            "documents were among them was not checked."
        )
    if metrics["test_documents"] < FEW_DOCUMENTS or metrics["accuracy"] in (0.0, 1.0):
        yield "Too few test documents, or no mistakes to resample: the bootstrap interval is narrower than the truth."


def comparison(metrics: Metrics) -> str:
    """The classifier beside its baselines, with intervals."""
    rows = [["majority class", percent(metrics["majority_accuracy"]), "", "", "", ""]]
    if "baseline" in metrics:
        rows.append([metrics["baseline"]["name"], *figures(metrics["baseline"])])
    rows.append([with_protocol("this classifier", metrics["protocol"]), *figures(metrics)])
    rows += [[escape(name), *figures(other)] for name, other in other_protocol(metrics)]
    text = table(["", "accuracy", "95 % interval", "macro F1", "log loss", "calibration error"], rows)
    text += f"\n\nIntervals come from {metrics['bootstrap_samples']:,} bootstrap resamples of the test documents."
    if "mcnemar" in metrics:
        test = metrics["mcnemar"]
        text += (
            f" The classifier alone is right on {test['only_classifier_right']:,} documents, the baseline alone on "
            f"{test['only_baseline_right']:,} (McNemar's exact test: p = {test['p']:.2g})."
        )
    return text


def figures(metrics: Metrics) -> list[str]:
    """Accuracy, its interval, macro F1, log loss and calibration error of one classifier, for a table."""
    return [
        percent(metrics["accuracy"]), interval(metrics), f"{metrics['macro_f1']:.4f}", f"{metrics['log_loss']:.4f}",
        f"{metrics['calibration_error']:.4f}",
    ]


def classes(metrics: Metrics) -> str:
    """Precision, recall and F1 of each class."""
    rows = [
        [escape(row["label"]), *(_optional(row[key]) for key in ("precision", "recall", "f1")), f"{row['documents']:,}"]
        for row in metrics["per_class"]
    ]
    return table(["class", "precision", "recall", "F1", "test documents"], rows)


def _confusion(metrics: Metrics) -> str:
    labels, matrix = [escape(label) for label in metrics["labels"]], metrics["confusion_matrix"]
    if len(labels) <= MATRIX_CLASSES:
        rows = [[f"**{label}**", *(f"{n:,}" for n in counts)] for label, counts in zip(labels, matrix, strict=True)]
        return "Rows are the true classes, columns the predicted ones.\n\n" + table(["", *labels], rows)
    pairs = [
        (count, labels[true], labels[predicted])
        for true, counts in enumerate(matrix)
        for predicted, count in enumerate(counts)
        if count and true != predicted
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [[true, predicted, f"{count:,}"] for count, true, predicted in pairs[:LISTED_CONFUSIONS]]
    return f"The {len(rows)} largest; all are in metrics.json.\n\n" + table(["true", "predicted", "documents"], rows)


def _calibration(metrics: Metrics) -> str:
    rows = [
        [
            f"{row['above']:.3f} to {row['up_to']:.3f}", f"{row['documents']:,}", _optional(row["confidence"]),
            _optional(row["accuracy"]),
        ]
        for row in metrics["calibration_bins"]
        if row["documents"]
    ]
    line = (
        f"Expected calibration error {metrics['calibration_error']:.4f} over {len(metrics['calibration_bins'])} bins: "
        f"the mean confidence is {percent(metrics['mean_confidence'])}, the accuracy {percent(metrics['accuracy'])}."
    )
    return f"{line}\n\n{table(['confidence', 'documents', 'mean confidence', 'accuracy'], rows)}"


def split_protocol(protocol: Metrics) -> str:
    """Who has read which documents, as a list."""
    counts = ", ".join(f"{split} {count:,}" for split, count in protocol["documents"].items())
    lines = [
        f"Protocol: {protocol_of(protocol)}.",
        f"Documents: {counts}.",
        " ".join(_who_was_trained_on_what(protocol)),
    ]
    if protocol.get("other_corpora"):
        lines.append(
            "It goes on from models that have read other texts, or only those. Whether the test documents are among "
            "them was not checked."
        )
    if protocol.get("labelled"):
        lines.append(
            f"Of the labels of train and valid, {protocol['labelled']:,} were looked at: train_classifier.labelled."
        )
    if protocol["test_documents_without_label"]:
        lines.append(f"{protocol['test_documents_without_label']:,} test documents have no label and are not scored.")
    lines += [f"Corpus, {escape(name)}: {count}." for name, count in protocol["duplicates"].items()]
    return "\n".join(f"- {line}" for line in lines)


def _who_was_trained_on_what(protocol: Metrics) -> Iterator[str]:
    chosen_on = protocol.get("validated_on", "valid")
    on = "train and valid" if chosen_on == "test" else "train"
    if protocol.get("trained_elsewhere"):
        yield (
            "The classifier was trained on another corpus. The baseline was fitted on the labelled documents of train."
        )
        return
    splits = protocol.get("language_model_read")
    if splits:
        text = " and ".join(part for part in (", ".join(splits[:-1]), splits[-1]) if part)
        yield f"The language model was trained on the text of {text}."
    elif splits is not None:  # None: made elsewhere, or before it was recorded
        yield "There is no language model behind it."
    yield (
        f"The classifier was trained on the labelled documents of {on}; the best epoch was chosen on {chosen_on}. The "
        f"baseline was fitted on the same documents of {on}."
    )


def _mistakes(mistakes: Sequence[Metrics]) -> str:
    if not mistakes:
        return "None."
    return "\n".join(
        f"{number}. {escape(row['doc_id'])}: is {escape(row['label'])}, predicted {escape(row['predicted'])} with "
        f"probability {row['probability']:.4f}: \"{escape(row['excerpt'])}\""
        for number, row in enumerate(mistakes, 1)
    )


def _lineage(metrics: Metrics) -> str:
    made_from = table(
        ["artifact", "fingerprint"], [[slot, f"`{value[:12]}`"] for slot, value in metrics["lineage"].items()]
    )
    precision = metrics["precision"]
    return (
        f"{made_from}\n\nPredicted on {metrics['device']} in {precision['effective']} (asked for: "
        f"{precision['requested']}). Seed of the bootstrap: {metrics['seed']}."
    )


def _optional(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is flush left, the others flush right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
