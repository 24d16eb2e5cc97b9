"""The figures as a table for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipeline.benchmark.figures import Result

LOG_WIDTH = 110
"""Columns where there is no terminal."""


def print_table(results: Sequence[Result]) -> None:
    """One row per case; what does not apply stays empty."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("case", "unit"):
        table.add_column(title, no_wrap=True)
    for title in ("ours", "fastai", "ratio", "of limit", "MB ours", "fastai", "DistilBERT", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in results:
        if result.failed:
            table.add_row(result.name, "failed")
            continue
        more = result.more
        table.add_row(
            result.name, result.unit, number(result.ours), number(result.fastai), times(result.ratio),
            share(result.limit_share), number(result.peak_mb_ours), number(result.peak_mb_fastai),
            number(more.get("distilbert")), times(more.get("ratio_distilbert")),
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    console.print(table)
    console.print()
    for result in results:
        note = note_of(result)
        if note:
            console.print(f"{result.name}: {note}", highlight=False)
    data = sorted({str(result.more["data"]) for result in results if "data" in result.more})
    said = f"Data: {'; '.join(data)}. " if data else ""
    console.print(f"{said}Medians; a ratio says how many times better ours is.", highlight=False)


def note_of(result: Result) -> str:
    """What a case has to say beside the table."""
    more = result.more
    if result.failed:
        return str(more["error"])
    if "p95_ours" in more:
        return f"p50 in the table; p95 {number(more['p95_ours'])} ms, fastai {number(more['p95_fastai'])} ms"
    if "copies" in more:
        return (
            f"{', '.join(f'x{n}' for n in more['copies'])}: {', '.join(map(number, more['seconds']))} s, "
            f"{', '.join(map(number, more['peaks_mb']))} MB"
        )
    return ""


def number(value: float | None) -> str:
    """Three digits that matter."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(value: float | None) -> str:
    """A ratio."""
    return "" if value is None else f"{value:.1f}x"


def share(value: float | None) -> str:
    """A share of one."""
    return "" if value is None else f"{value:.0%}"
