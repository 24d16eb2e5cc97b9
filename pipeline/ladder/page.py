"""The page of a comparison: table, chart, and what the notes reached beside it. Every figure is one of compare.json."""

from typing import Any

from pipeline import __version__
from pipeline.report import charts
from pipeline.report.blocks import Chart, Line, Page, Prose, Section, Table
from pipeline.report.figures import Figure, Sources
from pipeline.report.page import render_html


def render(document: dict[str, Any], name: str) -> str:
    """The HTML page of the comparison `document`, which is stored as `name`."""
    return render_html(_page(document, Sources({name: document}), name))


def _page(document: dict[str, Any], sources: Sources, name: str) -> Page:
    rows = document["rungs"]
    header = ["rung", "what it is", "accuracy", "its note", "bits per character", "parameters", "training"]
    points = [
        (row["rung"], row["mean"]["accuracy"], row["mean"]["parameters"], row["mean"]["train_s"]) for row in rows
    ]
    notes = [
        [row["rung"], ": ", sources.figure(name, "rungs", i, "published", "protocol"), "."]
        for i, row in enumerate(rows) if row["published"] is not None
    ]
    n_seeds = max(len(row["seeds"]) for row in rows)
    return Page(
        title=f"The ladder on {document['on']}",
        chips=[[f"{n_seeds} seed{'s' if n_seeds > 1 else ''}"]],
        top=[Prose([
            "Validation figures, mean and standard deviation over the seeds; the best epoch of each small model, the "
            "last of AWD_LSTM. All read the same ids and were trained by the same loop."
        ])],
        sections=[
            Section("rungs", "Rungs", [
                Table(header, [_cells(sources, name, i, row) for i, row in enumerate(rows)]),
                Chart(
                    charts.ladder(points), "Accuracy of each rung against its parameters and its training time.",
                    "Accuracy against parameters (for n-grams: how many are counted) and seconds of training.",
                ),
            ]),
            *([Section("notes", "What the notes did", [Prose(line) for line in notes])] if notes else []),
        ],
        footer=[f"Written by staged-ulmfit {__version__} from sealed artifacts. The same again: ",
                f"python -m pipeline compare --on {document['on']} --rungs "
                f"{','.join(row['rung'] for row in rows)} --seeds {n_seeds}"],
    )


def _cells(sources: Sources, name: str, i: int, row: dict[str, Any]) -> list[Line]:
    def mean(key: str, form: str) -> Line:
        line: list[str | Figure] = [sources.figure(name, "rungs", i, "mean", key, form=form)]
        if row["deviation"][key] is not None and key in {"accuracy", "bits_per_character"}:
            line += [" ± ", sources.figure(name, "rungs", i, "deviation", key, form=form)]
        return line

    published = sources.figure(name, "rungs", i, "published", "value", absent="")
    return [
        [row["rung"]], [row["about"], f" ({row['source']})"], mean("accuracy", "fixed4"), [published],
        mean("bits_per_character", "fixed3"), mean("parameters", "rate"), mean("train_s", "duration"),
    ]
