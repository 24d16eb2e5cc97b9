"""Options of the `tokens` command."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline import runs
from pipeline.artifact import open_artifact
from pipeline.errors import InputError, UsageError
from pipeline.options import HomeOption
from pipeline.picture import check_picture
from pipeline.progress import Reporter, printable
from pipeline.settings import MAX_PIECES


def command(  # noqa: PLR0917
    show: Annotated[
        str | None, typer.Option("--show", metavar="TEXT|FILE", help="A text, or a .txt file of one. Default: the "
                                 "first training document.")
    ] = None,
    on: Annotated[str, typer.Option("--on", metavar="RUN", help="Whose corpus trains the pieces.")] = "sample",
    pieces: Annotated[
        str, typer.Option("--pieces", metavar="N,...", help="Sizes of the subword tokenizers.")
    ] = "200,1000,10000",
    documents: Annotated[
        int, typer.Option("--documents", metavar="N", min=1, help="Training documents that the pieces are made from.")
    ] = 2000,
    first: Annotated[int, typer.Option("--first", metavar="N", min=1, help="Tokens of each that are printed.")] = 40,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Also draw counts and lengths, as .png or .svg.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help='One list of {"tokenizer", "n_tokens", "characters_per_token", "tokens"}.')
    ] = False,
    home: HomeOption = Path(),
) -> None:
    """Show one document in words, in pieces of several sizes and in characters: how many tokens, how long, which.

    The sizes and the number of documents are those of the study note that shows it (200, 1,000 and 10,000 pieces of
    2,000 reviews).
    """
    if plot is not None:
        check_picture(plot, "--plot")
    sizes = _sizes(pieces)
    runs.check_exists(on, home)
    run = runs.resolve(runs.Request(run=on, home=home)).runs[0]
    from pipeline import token_views

    corpus = open_artifact(run.path("corpus"), "corpus")
    text = token_views.first_document(corpus) if show is None else _text(show)
    found = token_views.views(text, corpus, run.recipe.tokenize_corpus, sizes, Reporter(), n_documents=documents)
    if plot is not None:
        token_views.plot(found, plot)
    if as_json:
        print(json.dumps([view.as_json() for view in found], ensure_ascii=False, indent=2))
        return
    print(printable(token_views.table(found, first)))
    if plot is not None:
        print(f"\nplot  {plot}")


def _sizes(pieces: str) -> list[int]:
    try:
        sizes = [int(size) for size in pieces.split(",")]
    except ValueError:
        raise UsageError(f"--pieces {pieces} is no list of numbers.", "Write --pieces 200,1000,10000.") from None
    if not all(0 < size <= MAX_PIECES for size in sizes):
        raise UsageError(f"--pieces {pieces} has a size outside 1 to {MAX_PIECES:,}.", "Write --pieces 200,1000,10000.")
    return sizes


def _text(show: str) -> str:
    if not show.endswith(".txt"):
        return show
    try:
        return Path(show).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        mend = "Name a text file in UTF-8, or give a text."
        raise InputError(f"--show {show} cannot be read: {error}.", mend) from error
