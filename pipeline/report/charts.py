"""Charts of a report as SVG that takes its colours from the page: light, dark and on paper.

Drawn by matplotlib; the same figures give the same bytes. A chart holds no text but ours and the names of phases.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

INK, MUTED, GRID, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", FIRST: "--accent", SECOND: "--second"}
"""Stand-ins for colours of the page; no chart has such colours of its own."""
WIDTH = 4.3
"""Inches: narrow, so that the letters stay readable when a phone makes the chart smaller."""
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 9.0, "text.color": INK, "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED, "axes.labelsize": 9.0, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "xtick.major.size": 0.0, "ytick.major.size": 0.0,
    "lines.linewidth": 1.8, "legend.frameon": False, "legend.fontsize": 8.5, "text.parse_math": False,
    "path.simplify": False,
}
_ENDING_ZEROS = re.compile(r"\.0+(?=%)")


class _Shares(PercentFormatter):
    """Of a whole: an axis may go beyond it, for room, but there is nothing to be called 105 %."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return "" if x > 1 + 1e-9 else _ENDING_ZEROS.sub("", super().__call__(x, pos))


Record = dict[str, Any]
Rows = Sequence[Record]


def accuracies(rows: Sequence[tuple[str, Record]], n_baselines: int) -> Markup:
    """Accuracy and 95 % interval of each classifier, one below the other, ours in colour.

    The first rows, as many as `n_baselines`, are not ours.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for at, (_, row) in enumerate(rows):
            colour = MUTED if at < n_baselines else FIRST
            if "accuracy_low" in row:
                axes.plot([row["accuracy_low"], row["accuracy_high"]], [at, at], color=colour, linewidth=5, alpha=0.35,
                          solid_capstyle="round")
            axes.plot([row["accuracy"]], [at], "o", color=colour, markersize=8)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(_Shares(1.0))
        axes.margins(x=0.08)
        axes.spines["left"].set_visible(False)

    return _svg("accuracies", 0.5 + 0.38 * len(rows), draw)


def training(name: str, curve: Rows, history: Rows, phases: Sequence[tuple[str, float]]) -> Markup:
    """Loss of training (within epochs where `curve` has it) and validation, and below it the learning rate.

    `phases` are names and the epoch at which each begins.
    """

    def draw(figure: Figure) -> None:
        top, *below = figure.subplots(2 if curve else 1, 1, sharex=True, squeeze=False,
                                      height_ratios=(3, 1) if curve else None)[:, 0]
        train = curve or history
        epochs = [record["epoch"] for record in history]
        top.plot([point["epoch"] for point in train], [point["train_loss"] for point in train], color=FIRST,
                 linewidth=1.2, marker="" if curve else "o", label="training")
        top.plot(epochs, [record["valid_loss"] for record in history], color=SECOND, marker="o", markersize=4,
                 label="validation")
        top.set_ylabel("loss")
        top.legend(loc="upper right")
        for axes in below:
            axes.plot([point["epoch"] for point in curve], [point["lr"] for point in curve], color=MUTED)
            axes.set_ylabel("learning rate")
            axes.set_ylim(bottom=0)
        last = below[-1] if below else top
        last.set_xlabel("epochs")
        last.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (top, *below):
            for _, start in phases[1:]:
                axes.axvline(start, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        if len(phases) > 1:
            _name_phases(top, phases)
        figure.align_ylabels()

    return _svg(f"training-{name}", 3.6 if curve else 2.6, draw)


def _name_phases(axes: Axes, phases: Sequence[tuple[str, float]]) -> None:
    """Names above the axes, on two levels, since short phases stand close together."""
    for number, (name, start) in enumerate(phases):
        axes.annotate(name, (start, 1.0), xycoords=("data", "axes fraction"), textcoords="offset points",
                      xytext=(2, 3 + 11 * (number % 2)), color=MUTED, fontsize=8, annotation_clip=False)


def reliability(bins: Rows) -> Markup:
    """Accuracy against confidence, larger dots for more documents, and how many documents each bin has."""

    def draw(figure: Figure) -> None:
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        filled = [row for row in bins if row["documents"]]
        most = max(row["documents"] for row in filled)
        top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
        top.plot([row["confidence"] for row in filled], [row["accuracy"] for row in filled], color=FIRST, linewidth=1)
        top.scatter(
            [row["confidence"] for row in filled], [row["accuracy"] for row in filled], color=FIRST,
            s=[12 + 88 * row["documents"] / most for row in filled], label="this classifier",
        )
        top.set_ylabel("accuracy")
        top.legend(loc="upper left", markerscale=0.7)
        below.bar([row["above"] for row in bins], [row["documents"] for row in bins], align="edge", color=FIRST,
                  width=[0.9 * (row["up_to"] - row["above"]) for row in bins], alpha=0.55)
        below.set_ylabel("documents")
        below.set_xlabel("confidence")
        below.yaxis.set_major_locator(MaxNLocator(2))
        lowest = min(row["above"] for row in filled)
        below.set_xlim(lowest - 0.02, 1.02)
        top.set_ylim(min(lowest, *(row["accuracy"] for row in filled)) - 0.05, 1.05)
        for axes in (top, below):
            axes.xaxis.set_major_formatter(_Shares(1.0))
        top.yaxis.set_major_formatter(_Shares(1.0))
        figure.align_ylabels()

    return _svg("reliability", 4.0, draw)


def lengths(rows: Rows) -> Markup:
    """Accuracy and its interval by length of the documents."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        at = range(len(rows))
        axes.vlines(at, [row["accuracy_low"] for row in rows], [row["accuracy_high"] for row in rows], color=FIRST,
                    linewidth=5, alpha=0.35, capstyle="round")
        axes.plot(at, [row["accuracy"] for row in rows], "o-", color=FIRST, linewidth=1)
        names = [f"{row['from_tokens']}\n{row['to_tokens']}" for row in rows]
        axes.set_xticks(at, names)
        axes.set_xlabel("tokens: from, to")
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(_Shares(1.0))
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("accuracy")

    return _svg("lengths", 2.8, draw)


def ladder(rungs: Sequence[tuple[str, float, float, float | None]]) -> Markup:
    """Accuracy of models against their parameters and against seconds of training, both on logarithmic scales.

    Each of `rungs` is (name, accuracy, parameters, seconds), in the order of the ladder; seconds is None where it is
    not known.
    """
    timed = [(name, seconds, accuracy) for name, accuracy, _, seconds in rungs if seconds is not None]
    costs = {"parameters": [(name, parameters, accuracy) for name, accuracy, parameters, _ in rungs]}
    if timed:
        costs["seconds of training"] = timed

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(costs), 1, sharey=True, squeeze=False)[:, 0]
        for axes, (label, points) in zip(panels, costs.items(), strict=True):
            values = [x for _, x, _ in points]
            axes.plot(values, [y for _, _, y in points], "o", color=FIRST, markersize=5)
            axes.set_xscale("log")
            axes.set_xlabel(label)
            axes.set_ylabel("accuracy")
            axes.margins(x=0.15, y=0.15)
            wide = max(values) >= 100 * min(values)
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
            )
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter(_Shares(1.0))
        figure.draw_without_rendering()  # only now is it known where the points are
        for axes, points in zip(panels, costs.values(), strict=True):
            _name_points(axes, points)

    return _svg("ladder", 2.8 * len(costs), draw)


def _name_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write the name of each (name, x, y) beside its point, where it covers no other name or point if there is room."""
    size, gap = 7.5, 4.5
    to_points = 72.0 / axes.figure.dpi
    places = [axes.transData.transform((x, y)) * to_points for _, x, y in points]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in places]
    box = axes.get_window_extent()
    left, right, low, high = (edge * to_points for edge in (box.x0, box.x1, box.y0, box.y1))
    for (name, x, y), (at_x, at_y) in zip(points, places, strict=True):
        width = 0.68 * size * len(name)  # as wide as most letters are: the page has the last word on the font
        choices = [
            (dx, step * size - size / 2) for step in (0, 1, -1, 2, -2, 3, -3) for dx in (gap, -gap - width)
        ]
        boxes = [(at_x + dx, at_y + dy, at_x + dx + width, at_y + dy + size) for dx, dy in choices]
        free = [
            i for i, (x0, y0, x1, y1) in enumerate(boxes)
            if left <= x0 and x1 <= right + 6 and low <= y0 and y1 <= high
            and not any(x0 < b[2] and b[0] < x1 and y0 < b[3] and b[1] < y1 for b in taken)
        ]
        best = free[0] if free else 0
        taken.append(boxes[best])
        written = axes.annotate(name, (x, y), textcoords="offset points", fontsize=size, xytext=choices[best])
        written.set_in_layout(False)


def _svg(name: str, height: float, draw: Callable[[Figure], None]) -> Markup:
    """What `draw` puts on a figure, for use inside a page. `name` keeps its ids apart from those of other charts."""
    stream = io.StringIO()
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # it takes a Literal of every name
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    opening = r'<svg viewBox="\1" aria-hidden="true" focusable="false">'
    svg = re.sub(r'<svg .*?viewBox="([^"]*)".*?>', opening, svg, count=1)
    svg = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\1{name}-", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    return Markup("\n".join(line.strip() for line in svg.splitlines() if line.strip()))  # drawn here
