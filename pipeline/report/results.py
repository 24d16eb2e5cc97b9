"""The sections of a report on how good the classifier is."""

from collections.abc import Iterator
from typing import Any

from pipeline.report import charts
from pipeline.report.blocks import (
    Block,
    Card,
    Cards,
    Chart,
    Details,
    Hero,
    Line,
    Mistake,
    Mistakes,
    Note,
    Prose,
    Section,
    Table,
    mark,
)
from pipeline.report.evaluation_page import LISTED_CONFUSIONS, MATRIX_CLASSES, warnings
from pipeline.report.figures import Figure, Sources
from pipeline.report.gather import DERIVED, METRICS
from pipeline.report.summary import other_protocol, with_protocol

SHADES = 9


def _metric(sources: Sources, *path: str | int, form: str = "plain") -> Figure:
    return sources.figure(METRICS, *path, form=form)


def interval(sources: Sources, source: str, *path: str | int) -> list[str | Figure]:
    """The 95 % interval of the accuracy at `path`: LOW to HIGH."""
    return [
        sources.figure(source, *path, "accuracy_low", form="percent"), " to ",
        sources.figure(source, *path, "accuracy_high", form="percent"),
    ]


def headline(sources: Sources) -> Iterator[Block]:
    """Accuracy, its interval, what it has to beat, and what must be known to read it."""
    metrics = sources.documents[METRICS]
    line: list[str | Figure] = [
        "95 % interval ", *interval(sources, METRICS), ", on ", _metric(sources, "test_documents", form="count"),
        " test documents.",
    ]
    if "baseline" in metrics:
        line += [
            " ", _metric(sources, "baseline", "name"), " reaches ",
            _metric(sources, "baseline", "accuracy", form="percent"), ", always answering \"",
        ]
    else:
        line += [" Always answering \""]
    line += [
        _metric(sources, "majority_label"), "\" ", _metric(sources, "majority_accuracy", form="percent"), ".",
    ]
    label = with_protocol("Accuracy on test", metrics["protocol"])
    yield Hero(label, _metric(sources, "accuracy", form="percent"), line)
    for warning in warnings(metrics):
        yield Note([warning])


def comparison(sources: Sources) -> Section:
    """The classifier beside its baselines."""
    metrics = sources.documents[METRICS]
    shown = [("majority class", {"accuracy": metrics["majority_accuracy"]})]
    rows: list[list[Line]] = [
        [["majority class"], [_metric(sources, "majority_accuracy", form="percent")], *[[""]] * 4]
    ]
    if "baseline" in metrics:
        shown.append((metrics["baseline"]["name"], metrics["baseline"]))
        rows.append([[_metric(sources, "baseline", "name")], *_scores(sources, "baseline")])
    n_baselines, name = len(shown), with_protocol("this classifier", metrics["protocol"])
    shown.append((name, metrics))
    rows.append([[name], *_scores(sources)])
    for name, other in other_protocol(metrics):
        shown.append((name, other))
        rows.append([[name], *_scores(sources, "other_protocol")])
    blocks: list[Block] = [
        Chart(
            charts.accuracies(shown, n_baselines),
            "Accuracy of " + ", ".join(name for name, _ in shown) + " on the test split, one below the other, with "
            "95 % intervals as bars. The figures are in the table that follows.",
            "Dots are accuracies on the test split, bars their 95 % intervals.",
        ),
        Table(["", "accuracy", "95 % interval", "macro F1", "log loss", "calibration error"], rows),
    ]
    line: list[str | Figure] = [
        "Intervals come from ", _metric(sources, "bootstrap_samples", form="count"),
        " bootstrap resamples of the test documents.",
    ]
    if "mcnemar" in metrics:
        line += [
            " The classifier alone is right on ", _metric(sources, "mcnemar", "only_classifier_right", form="count"),
            " documents, the baseline alone on ", _metric(sources, "mcnemar", "only_baseline_right", form="count"),
            " (McNemar's exact test: p = ", _metric(sources, "mcnemar", "p", form="general"), ").",
        ]
    return Section("comparison", "What it has to beat", [*blocks, Prose(line)])


def _scores(sources: Sources, *path: str) -> list[Line]:
    return [
        [_metric(sources, *path, "accuracy", form="percent")], interval(sources, METRICS, *path),
        *([_metric(sources, *path, key, form="fixed4")] for key in ("macro_f1", "log_loss", "calibration_error")),
    ]


def classes(sources: Sources) -> Section:
    """Figures of each class, and which is taken for which."""
    metrics = sources.documents[METRICS]
    rows = [
        [
            [row["label"]],
            *([_metric(sources, "per_class", i, key, form="fixed4")] for key in ("precision", "recall", "f1")),
            [_metric(sources, "per_class", i, "documents", form="count")],
        ]
        for i, row in enumerate(metrics["per_class"])
    ]
    return Section(
        "classes", "Classes and confusions",
        [Table(["class", "precision", "recall", "F1", "test documents"], rows), *_confusion(sources)],
    )


def _confusion(sources: Sources) -> Iterator[Block]:
    metrics = sources.documents[METRICS]
    labels, matrix = metrics["labels"], metrics["confusion_matrix"]

    def count(true: int, predicted: int) -> Line:
        return [_metric(sources, "confusion_matrix", true, predicted, form="count")]

    if len(labels) <= MATRIX_CLASSES:
        yield Prose(["Rows are the true classes, columns the predicted ones; the shade is the share of the row."])
        columns = range(len(labels))
        rows: list[list[Line]] = [[[label], *(count(t, p) for p in columns)] for t, label in enumerate(labels)]
        shades = [[round(SHADES * n / max(sum(counts), 1)) for n in counts] for counts in matrix]
        yield Table(["", *labels], rows, shades)
        return
    pairs = sorted(
        ((-n, t, p) for t, counts in enumerate(matrix) for p, n in enumerate(counts) if n and t != p)
    )[:LISTED_CONFUSIONS]
    yield Prose(["The largest confusions; all are in metrics.json."])
    yield Table(["true", "predicted", "documents"], [[[labels[t]], [labels[p]], count(t, p)] for _, t, p in pairs])


def calibration(sources: Sources) -> Section:
    """Whether the probabilities can be believed."""
    bins = sources.documents[METRICS]["calibration_bins"]
    rows: list[list[Line]] = [
        [
            [_metric(sources, "calibration_bins", i, "above", form="fixed3"), " to ",
             _metric(sources, "calibration_bins", i, "up_to", form="fixed3")],
            [_metric(sources, "calibration_bins", i, "documents", form="count")],
            *([_metric(sources, "calibration_bins", i, key, form="fixed4")] for key in ("confidence", "accuracy")),
        ]
        for i, row in enumerate(bins) if row["documents"]
    ]
    return Section(
        "calibration", "Can its probabilities be believed?",
        [
            Prose([
                "Expected calibration error ", _metric(sources, "calibration_error", form="fixed4"),
                ": the mean confidence is ", _metric(sources, "mean_confidence", form="percent"),
                ", the accuracy ", _metric(sources, "accuracy", form="percent"), ".",
            ]),
            Chart(
                charts.reliability(bins),
                "Reliability diagram: accuracy against confidence beside the diagonal of perfect calibration, and the "
                "number of documents in each bin. The figures are in the table that follows.",
                "Below the dashed line the classifier is surer than it should be. Larger dots: more documents.",
            ),
            Details("Figures of the reliability diagram",
                    [Table(["confidence", "documents", "mean confidence", "accuracy"], rows)]),
        ],
    )


def length(sources: Sources) -> Section:
    """Accuracy by the length of the documents."""
    bins = sources.documents[DERIVED]["by_length"]
    rows: list[list[Line]] = [
        [
            [sources.figure(DERIVED, "by_length", i, "from_tokens", form="count"), " to ",
             sources.figure(DERIVED, "by_length", i, "to_tokens", form="count")],
            [sources.figure(DERIVED, "by_length", i, "documents", form="count")],
            [sources.figure(DERIVED, "by_length", i, "accuracy", form="percent")],
            interval(sources, DERIVED, "by_length", i),
        ]
        for i in range(len(bins))
    ]
    return Section(
        "length", "Short and long documents",
        [
            Chart(charts.lengths(bins), "Accuracy with its 95 % interval in bins of document length, short to long. "
                  "The figures are in the table that follows.",
                  "Accuracy on test documents of each length; bars are 95 % intervals."),
            Details("Figures by length", [Table(["tokens", "documents", "accuracy", "95 % interval"], rows)]),
        ],
    )


def mistakes(sources: Sources) -> Section:
    """Where the classifier was surest and wrong, and the words that made it so."""
    found = sources.documents[DERIVED]["mistakes"]
    title = "Most confident mistakes"
    if not found:
        return Section("mistakes", title, [Prose(["None: every test document was classified rightly."])])
    about = Prose([
        "Wrong with the highest probability. Marked words speak for the wrong class (solid underline) or against it "
        "(dotted), the stronger the darker. The method is ", sources.figure(DERIVED, "attribution", "method"),
        ", in ", sources.figure(DERIVED, "attribution", "precision"),
        ": the change of the log-odds, to first order, if the word's embedding were taken away. The text is "
        "shown as the tokenizer hands it to the model.",
    ])
    return Section("mistakes", title, [about, Mistakes([_mistake(sources, i, row) for i, row in enumerate(found)])])


def _mistake(sources: Sources, number: int, row: dict[str, Any]) -> Mistake:
    at = ("mistakes", number)
    return Mistake(
        [
            row["doc_id"], ": is ", row["label"], ", predicted ", row["predicted"], " with probability ",
            sources.figure(DERIVED, *at, "probability", form="fixed4"),
        ],
        mark(row["words"]),
        cut_before=row["words_before"] > 0, cut_after=row["words_after"] > 0,
        strongest=[
            (text, sources.figure(DERIVED, *at, "strongest", i, 1, form="signed"))
            for i, (text, _) in enumerate(row["strongest"])
        ],
    )


def language_model(sources: Sources, role: str) -> Cards:
    """What the language model reached on validation."""
    source = f"{role}/manifest.json"
    shown = (("perplexity", "perplexity", "fixed2"), ("bits per character", "bits_per_character", "fixed3"),
             ("next-token accuracy", "accuracy", "percent"), ("validation loss", "valid_loss", "fixed4"))
    return Cards([
        Card(name, [sources.figure(source, "metrics", key, form=form)])
        for name, key, form in shown if sources.get(source, "metrics", key) is not None
    ])
