"""Options of the `predict` command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import stopping
from pipeline.options import (
    BsOption,
    ClassifierPrecisionOption,
    DeviceOption,
    HomeOption,
    IdColumnOption,
    InputOption,
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
        Path | None, typer.Option("--output", metavar="FILE", help="A .jsonl, .csv or .parquet to write. Default: JSON "
                                  "lines to standard output.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="FOLDER|RUN", help="A sealed classifier, or the run that has one.")
    ] = DEFAULT_MODEL,
    id_column: IdColumnOption = None,
    text_column: TextColumnOption = "text",
    bs: BsOption = 64,
    precision: ClassifierPrecisionOption = "auto",
    device: DeviceOption = "auto",
    force: ReplaceOption = False,
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    """Predict the class of texts with a sealed classifier: label and probabilities, in the order of the input."""
    from pipeline.inference.bulk import Request
    from pipeline.inference.predict import predict

    reporter = Reporter()
    request = Request(
        model, tuple(texts or ()), source, output, id_column, text_column, bs, precision, device, force, home
    )
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        predict(request, reporter, sys.stdin.buffer, sys.stdout.buffer)
