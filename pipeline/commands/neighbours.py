"""The `neighbours` command: its options, and what lies nearest as lines or JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UsageError
from pipeline.options import HomeOption
from pipeline.picture import check_picture
from pipeline.pretrained import DEFAULT_MODEL
from pipeline.progress import Reporter, printable


def command(  # noqa: PLR0917
    word: Annotated[str | None, typer.Option("--word", help="Whose neighbours: words of like embedding.")] = None,
    plus: Annotated[
        list[str] | None, typer.Option("--plus", metavar="WORD", help="Added to --word; may be repeated.")
    ] = None,
    minus: Annotated[
        list[str] | None, typer.Option("--minus", metavar="WORD", help="Taken from it: --word king --minus man --plus "
                                       "woman.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Whose neighbours: documents of --among.")] = None,
    among: Annotated[
        Path | None, typer.Option("--among", metavar="FILE", help="A .parquet that `embed` wrote.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw --words: a .png or .svg with the two axes of "
                                  "their PCA.")
    ] = None,
    words: Annotated[str | None, typer.Option("--words", metavar="A,B,...", help="Words to draw.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many neighbours.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help='One object {"model", "nearest": [{"name", "cosine"}]}.')] = (
        False
    ),
    model: Annotated[
        str | None, typer.Option("--model", metavar="FOLDER|RUN", help="A sealed language model or classifier, or the "
                                 "run that has one; of a run that has both, the language model, but with --among the "
                                 f"classifier, as `embed` does. Default: {DEFAULT_MODEL}; with --among the model that "
                                 "made it.")
    ] = None,
    home: HomeOption = Path(),
) -> None:
    """Find the words nearest to a word, or the documents nearest to a text; draw words in two dimensions."""
    asked = [
        what for what, given in (("--word", word), ("--text with --among", text or among), ("--plot with --words",
                                                                                         plot or words)) if given
    ]
    complete = (text is None) == (among is None) and (plot is None) == (words is None)
    if len(asked) != 1 or not complete or ((plus or minus) and word is None):
        raise UsageError(
            "It is not clear whose neighbours are meant.",
            "Give one of: --word (with --plus and --minus if you like), --text with --among, --plot with --words.",
        )
    if plot is not None:
        check_picture(plot, "--plot")
    from pipeline.inference.embed import SLOTS, load_embedder
    from pipeline.inference.models import find_model
    from pipeline.inference.neighbours import WordVectors, model_of, nearest_documents
    from pipeline.inference.vectors import read_origin

    origin = read_origin(among) if among is not None else None
    if origin is not None:
        folder = find_model(model, home, SLOTS) if model else model_of(origin, home)
    else:
        folder = find_model(model or DEFAULT_MODEL, home, ("lm", "classifier"))
    embedder = load_embedder(folder)
    Reporter().line(f"neighbours: {embedder.path}")
    if plot is not None and words is not None:
        from pipeline.inference.word_plot import plot_words

        plot_words(WordVectors.of(embedder), [name.strip() for name in words.split(",") if name.strip()], plot)
        print(plot)
        return
    if text is not None and among is not None and origin is not None:
        nearest = nearest_documents(embedder, text, among, origin, top)
    else:
        assert word is not None
        nearest = WordVectors.of(embedder).nearest([word, *(plus or ())], minus or (), top)
    if as_json:
        rows = [{"name": name, "cosine": round(cosine, 6)} for name, cosine in nearest]
        print(json.dumps({"model": str(embedder.path), "nearest": rows}, ensure_ascii=False, indent=2))
        return
    for name, cosine in nearest:
        print(f"{cosine:6.3f}  {printable(name)}")
