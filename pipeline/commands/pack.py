"""Options of the `pack` command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.options import HomeOption
from pipeline.progress import Reporter


def command(  # noqa: PLR0917
    models: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Sealed language models, classifiers and evaluations.")
    ],
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the copies go, each by its name.")],
    storage: Annotated[
        Literal["int8", "bf16", "float32"],
        typer.Option("--storage", help="int8: a quarter of the size, bf16: half of it, float32: all of it."),
    ] = "int8",
    force: Annotated[bool, typer.Option("--force", help="Replace what was packed from something else.")] = False,
    card: Annotated[
        bool, typer.Option("--card", help="Also write README.md, a model card: results, use, limits, lineage, "
                           "checksums. It is of the folder's classifier, if there is one, and has the results of an "
                           "evaluation of it that is packed with this command.")
    ] = False,
    license_: Annotated[
        str, typer.Option("--license", metavar="ID", help="Of the card, such as apache-2.0.")
    ] = "unknown",
    home: HomeOption = Path(),
) -> None:
    """Copy sealed models with their weights in fewer bits, to give them away: they are used like any others."""
    from pipeline import pack

    pack.check_names(models)
    for model in models:
        packed = pack.pack(model, output, storage, Reporter(), force=force)
        print(f"{packed.path}  {pack.size_mb(packed):.1f} MB")
    if card:
        from pipeline.export.card import CardRequest, write_packed_card

        write_packed_card(output, models, CardRequest(output.resolve().name, license_), home, force=force)
        print(output / "README.md")
