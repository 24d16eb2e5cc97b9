"""Options of the `benchmark` command; light, since `pipeline.cli` imports it for every command."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pipeline.benchmark import cases
from pipeline.progress import Reporter


class BenchmarkCommand(TyperCommand):
    """Its help tells what each case measures."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the cases, from their definitions."""
        with formatter.section("Cases"):
            formatter.write_dl([(case.name, f"{case.summary} In {case.unit}.") for case in cases.CASES])


def benchmark(  # noqa: PLR0917
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help=f"Default: all. {', '.join(cases.NAMES)}.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One object per case, one a line: name, ours, fastai, ratio (how many times better "
                     "ours is), unit, limit_share (of the machine's own rate of matrix multiplication), peak_mb_ours, "
                     "peak_mb_fastai; null where it does not apply."),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller data, fewer repeats, no DistilBERT, memory of the training "
                           "cases alone: some 3 minutes on two cores, not 20.")
    ] = False,
    source: Annotated[
        Path | None, typer.Option("--source", metavar="FILE", help="The IMDB archive, for the cases that read text. "
                                  "Default: generated reviews.")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the figures for the README of this checkout.")
    ] = False,
    tiny: Annotated[bool, typer.Option("--tiny", hidden=True)] = False,
) -> None:
    """Measure this pipeline and plain fastai side by side, in turn, on the same data: medians, ratios, memory.

    Exit code 1 if a case failed; the others are measured all the same.
    """
    from pipeline.benchmark import run

    sizes = "tiny" if tiny else "quick" if quick else "full"
    request = run.BenchmarkRequest(tuple(names or ()), as_json, sizes, source, record)
    if not run.benchmark(request, Reporter()):
        raise typer.Exit(1)
