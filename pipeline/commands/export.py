"""Options of the `export` command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.options import HomeOption
from pipeline.progress import Reporter


def command(  # noqa: PLR0917
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the files go.")],
    to: Annotated[Literal["fastai"], typer.Option("--to", help="Whose files to write.")] = "fastai",
    lm: Annotated[Path | None, typer.Option("--lm", metavar="FOLDER", help="A sealed language model.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="Or the run that has one.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of NAME.pth and the two files beside it. Default: lm_fwd or lm_bwd.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that hold something else.")] = False,
    home: HomeOption = Path(),
) -> None:
    """Write a sealed language model as files that fastai's load_pretrained and load_encoder read."""
    from pipeline.export.fastai import export_fastai
    from pipeline.export.finding import find_model

    done = export_fastai(find_model("lm", lm, run, home), output, name, Reporter(), force=force)
    print(f"load it with fastai (from fastai.text.all import *):\n{done.code}")
