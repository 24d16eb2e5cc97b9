"""Options of the `predict` command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import stopping
from pipeline.options import HomeOption, StopAfterOption
from pipeline.progress import Reporter


def command(  # noqa: PLR0917
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts. Default: --input, or one text a line from "
                                         "standard input.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="A .txt (one text a line), .csv, .jsonl or .parquet.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="A .jsonl, .csv or .parquet to write. Default: JSON "
                                  "lines to standard output.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="FOLDER|RUN", help="A sealed classifier, or the run that has one.")
    ] = "sample",
    id_column: Annotated[
        str | None, typer.Option("--id-column", metavar="NAME", help="Default: id if there is one, else row numbers.")
    ] = None,
    text_column: Annotated[str, typer.Option("--text-column", metavar="NAME")] = "text",
    bs: Annotated[int, typer.Option("--bs", min=1, help="Documents per batch.")] = 64,
    precision: Annotated[
        str, typer.Option("--precision", metavar="auto|fp16|bf16|fp32", help="auto: fp16 on CUDA, bf16 on a CPU that "
                          "has it, else fp32.")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:N]")] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace the output; discard an unfinished one of another input or model.")
    ] = False,
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
