"""Options of the `import-huggingface` command."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import ForceOption, HomeOption
from pipeline.progress import Reporter


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `export --to huggingface` wrote.")],
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Write models/NAME/classifier-fwd, lm-fwd, ...")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Write this folder instead.")] = None,
    force: ForceOption = False,
    home: HomeOption = Path(),
) -> None:
    """Turn a folder downloaded from the Hugging Face Hub into the sealed artifact that was exported, byte for byte."""
    from pipeline.export.restoring import restore

    model = restore(folder, to, run, home, Reporter(), force=force)
    print(model.path)
