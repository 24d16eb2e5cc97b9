"""Options of the `embed` command."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline import stopping
from pipeline.options import (
    BsOption,
    DeviceOption,
    HomeOption,
    IdColumnOption,
    InputOption,
    PrecisionOption,
    ReplaceOption,
    StopAfterOption,
    TextColumnOption,
    TextsArgument,
)
from pipeline.pretrained import DEFAULT_MODEL
from pipeline.progress import Reporter


def command(  # noqa: PLR0917
    texts: TextsArgument = None,
    source: InputOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="A .parquet (id, vector), .npy (rows in the order "
                                  "of the input) or .jsonl to write. Default: JSON lines to standard output.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="FOLDER|RUN", help="A sealed classifier or language model, or the run "
                          "that has one; of a run that has both, the classifier.")
    ] = DEFAULT_MODEL,
    pooling: Annotated[
        Literal["concat", "mean", "max", "last"],
        typer.Option("--pooling", help="Of the encoder's outputs: their mean, their largest, the one after the last "
                     "token, or all three, which is what a classifier sees."),
    ] = "concat",
    id_column: IdColumnOption = None,
    text_column: TextColumnOption = "text",
    bs: BsOption = 64,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    force: ReplaceOption = False,
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    """Turn texts into vectors with the encoder of a sealed classifier or language model, in the order of the input."""
    from pipeline.inference.bulk import Request
    from pipeline.inference.embed import embed

    reporter = Reporter()
    request = Request(
        model, tuple(texts or ()), source, output, id_column, text_column, bs, precision, device, force, home
    )
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        embed(request, pooling, reporter, sys.stdin.buffer, sys.stdout.buffer)
