"""Options of the `pack` command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.progress import Reporter


def command(
    models: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Sealed language models and classifiers.")
    ],
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the copies go, each by its name.")],
    storage: Annotated[
        Literal["int8", "bf16", "float32"],
        typer.Option("--storage", help="int8: a quarter of the size, bf16: half of it, float32: all of it."),
    ] = "int8",
    force: Annotated[bool, typer.Option("--force", help="Replace what was packed from something else.")] = False,
) -> None:
    """Copy sealed models with their weights in fewer bits, to give them away: they are used like any others."""
    from pipeline import pack

    for model in models:
        packed = pack.pack(model, output, storage, Reporter(), force=force)
        print(f"{packed.path}  {pack.size_mb(packed):.1f} MB")
