"""The page of a comparison: table, chart, and what the notes reached beside it. Every figure is one of compare.json."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline import __version__
from pipeline.report import charts
from pipeline.report.blocks import Block, Chart, Details, Line, Note, Page, Prose, Section, Table
from pipeline.report.figures import Figure, Sources
from pipeline.report.page import render_html
from pipeline.report.summary import notes, with_protocol


def render(document: dict[str, Any], name: str) -> str:
    """The HTML page of the comparison `document`, which is stored as `name`."""
    return render_html(_page(document, Sources({name: document}), name))


LM_COLUMNS = (("accuracy", "fixed4"), ("bits_per_character", "fixed3"))
CLASSIFIER_COLUMNS = (("accuracy", "fixed4"), ("macro_recall", "fixed4"))
COST_COLUMNS = (("parameters", "rate"), ("train_s", "duration"), ("documents_per_s", "rate"))
WAYS = ("greedy", "sampled")
IN_SIGHT = 2
"""Rungs whose text is shown without being asked for."""
NAMES = {"train_s": "training", "documents_per_s": "documents per s"}


def remarks_on(row: dict[str, Any]) -> list[str]:
    """What a reader of a rung's figures has to know, in sentences."""
    elsewhere = ["Its classifier was trained on another corpus."] if row.get("trained_elsewhere") else []
    return [*notes(row), *elsewhere]


def _page(document: dict[str, Any], sources: Sources, name: str) -> Page:
    rows = document["rungs"]
    classifies = "macro_recall" in rows[0]["mean"]
    columns = [
        *(CLASSIFIER_COLUMNS if classifies else LM_COLUMNS),
        *(column for column in COST_COLUMNS if any(column[0] in row["mean"] for row in rows)),
    ]
    metrics = {metric_beside(row["published"]) for row in rows if row["published"] is not None}
    noted, shared = bool(metrics), metrics.pop() if len(metrics) == 1 else None
    header = [
        "rung",
        *([f"its note,{shared}" if shared else "its note"] if noted else []),  # a metric that all share is said here
        *(NAMES.get(key, key.replace("_", " ")) for key, _ in columns),
    ]
    names = [with_protocol(row["rung"], row) for row in rows]
    points = [
        (called, row["mean"]["accuracy"], row["mean"]["parameters"], row["mean"].get("train_s"))
        for called, row in zip(names, rows, strict=True)
    ]
    reached: list[Line] = [
        [
            row["rung"], ": ", sources.figure(name, "rungs", i, "published", "metric"), " ",
            sources.figure(name, "rungs", i, "published", "value"), ", ",
            sources.figure(name, "rungs", i, "published", "protocol"), ".",
        ]
        for i, row in enumerate(rows) if row["published"] is not None
    ]
    n_seeds = max(len(row["seeds"]) for row in rows)
    said = (
        "Figures of the test split; a neural rung's epoch was chosen on validation, unless it says otherwise below."
        if classifies else
        "Figures of validation: of the best epoch of each small model, of the weights that AWD_LSTM sealed: "
        "the last epoch's, the best one's where a phase has patience, or a mean."
    )
    return Page(
        title=f"The ladder on {document['on']}",
        chips=[[f"{n_seeds} seed{'s' if n_seeds > 1 else ''}"]],
        top=[Prose([f"{said} Mean and standard deviation over the seeds. All read the same ids."])],
        sections=[
            Section("rungs", "Rungs", [
                Table(header, [
                    [
                        [names[i]], *([_of_note(sources, name, i, shared is None)] if noted else []),
                        *_cells(sources, name, i, row, columns),
                    ]
                    for i, row in enumerate(rows)
                ]),
                *(Note([f"{row['rung']}: {remark}"]) for row in rows for remark in remarks_on(row)),
                Details("What each rung is", [Table(
                    ["rung", "what it is", "whose"], [[[row["rung"]], [row["about"]], [row["source"]]] for row in rows],
                    numbers=False,
                )]),
                Chart(
                    charts.ladder(points), "Accuracy of each rung against its parameters and its training time.",
                    "Accuracy against parameters (for n-grams: how many are counted) and seconds of training.",
                ),
            ]),
            *([Section("text", "Generated text", [*_text(document, sources, name)])] if "prompt" in document else []),
            *([Section("notes", "What the notes reached", [Prose(line) for line in reached])] if reached else []),
        ],
        footer=[f"Written by staged-ulmfit {__version__} from sealed artifacts. The same again: {document['command']}"],
    )


def _text(document: dict[str, Any], sources: Sources, name: str) -> Iterator[Block]:
    """What the language models wrote: how much of it is repetition, and the texts, those of the last rungs in sight."""
    yield Prose([
        "Each goes on after the beginning of the validation text, \u201c", sources.figure(name, "prompt"),
        "\u201d, for ", sources.figure(name, "continued_by_tokens"),
        " tokens: greedy always takes the most probable one, sampled draws at the temperature of the command generate. "
        "Repeated is the share of its runs of ", sources.figure(name, "repeated_tokens"),
        " tokens that it wrote before: a text that loops comes near to 100 %.",
    ])
    rows, samples = [], []
    for i, row in enumerate(document["rungs"]):
        if "written" in row:
            shares = [sources.figure(name, "rungs", i, "written", way, "repeated", form="share") for way in WAYS]
            rows.append([[row["rung"]], *([share] for share in shares)])
            samples.append([
                Prose([f"{row['rung']}, {way}: ", sources.figure(name, "rungs", i, "written", way, "text")])
                for way in reversed(WAYS)
            ])
    yield Table(["rung", *(f"repeated, {way}" for way in WAYS)], rows)
    for blocks in samples[-IN_SIGHT:]:
        yield from blocks
    if before := samples[:-IN_SIGHT]:
        yield Details("What the rungs below them write", [block for blocks in before for block in blocks])


def _of_note(sources: Sources, name: str, i: int, with_metric: bool) -> Line:
    figure = sources.figure(name, "rungs", i, "published", "value", absent="")
    return [figure, metric_beside(sources.get(name, "rungs", i, "published")) if with_metric else ""]


def _cells(
    sources: Sources, name: str, i: int, row: dict[str, Any], columns: Sequence[tuple[str, str]]
) -> list[Line]:
    cells: list[Line] = []
    for key, form in columns:
        cell: list[str | Figure] = [sources.figure(name, "rungs", i, "mean", key, form=form, absent="")]
        if key == "accuracy" and row["deviation"][key] is not None:
            cell += [" ± ", sources.figure(name, "rungs", i, "deviation", key, form=form)]
        cells.append(cell)
    return cells


def metric_beside(published: dict[str, Any] | None) -> str:
    """The name of the note's figure, unless it is an accuracy or there is none."""
    if published is None or published["metric"] == "accuracy":
        return ""
    return f" {published['metric'].replace('_', ' ')}"
