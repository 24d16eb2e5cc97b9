"""Options of the `import-fastai` command."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import ForceOption, HomeOption
from pipeline.progress import Reporter


def command(  # noqa: PLR0917
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="wt103-fwd or wt103-bwd (downloaded), a .tgz, a folder, or a .pth.")
    ],
    vocabulary: Annotated[
        str | None, typer.Argument(metavar="ITOS", help="The itos*.pkl that was saved with a .pth.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Write models/NAME/lm-fwd or lm-bwd. Default for a "
                                 "downloaded model: wt103.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Write this folder instead.")] = None,
    direction: Annotated[
        str | None, typer.Option("--direction", metavar="fwd|bwd", help="Default: as the names of the files tell.")
    ] = None,
    language: Annotated[str, typer.Option("--language", help="spaCy code of the language it was trained on.")] = "en",
    local_copy: Annotated[
        str | None, typer.Option("--source", metavar="PATH", help="A copy of wt103-fwd.tgz or wt103-bwd.tgz to use "
                                 "instead of a download.")
    ] = None,
    transductive: Annotated[
        bool, typer.Option("--transductive", help="It has read the text it will be tested on; reports will say so.")
    ] = False,
    force: ForceOption = False,
    home: HomeOption = Path(),
) -> None:
    """Turn a language model saved by fastai 1 or 2 into one that a run can start from; no code in its files is run."""
    from pipeline import import_fastai as importing

    request = importing.ImportRequest(source, vocabulary, local_copy, direction, language, transductive)
    target = importing.target_folder(request, to, run, home)
    lm = importing.import_fastai(request, target, Reporter(), home=home, force=force)
    print(f"start from it: {importing.use_of(lm)}")
