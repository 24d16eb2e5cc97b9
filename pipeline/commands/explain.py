"""Options of the `explain` command."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline import machine
from pipeline.errors import UsageError
from pipeline.options import HomeOption
from pipeline.pretrained import DEFAULT_MODEL
from pipeline.storage import check_place_of_file, write_durably


def command(  # noqa: PLR0917
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts. Default: one a line from standard input.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="FOLDER|RUN", help="A sealed classifier, or the run that has one.")
    ] = DEFAULT_MODEL,
    label: Annotated[
        str | None, typer.Option("--class", metavar="LABEL", help="The class that words speak for or against. Default: "
                                 "the predicted one.")
    ] = None,
    method: Annotated[
        Literal["gradient", "occlusion"], typer.Option("--method", help="gradient: input x gradient, one reading. "
                                                       "occlusion: one reading without each word.")
    ] = "gradient",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page that needs nothing else.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help='One line per text: {"label", "probabilities", "explained", "method", '
                           '"words": [{"text", "value", "glued"}]}.')
    ] = False,
    home: HomeOption = Path(),
) -> None:
    """Show which words made a classifier decide as it did, as colours on a terminal, a page or JSON."""
    if not texts and sys.stdin.isatty():
        raise UsageError("There is nothing to explain.", "Give texts, or pipe one text a line in.")
    if html is not None:
        check_place_of_file(html, "--html")
    from rich.console import Console

    from pipeline.inference.bundle import load_classifier_bundle
    from pipeline.inference.explanation import explain
    from pipeline.inference.inputs import from_arguments, from_lines
    from pipeline.inference.predict import find_classifier
    from pipeline.report.explanations import as_page, as_text
    from pipeline.settings import RunSettings

    console = Console(highlight=False, soft_wrap=True)
    colours = console.is_terminal and not console.no_color
    shown_later = []
    with machine.limits_told("explain"):
        # In full precision, as in reports: the same numbers whatever the classifier was trained in.
        bundle = load_classifier_bundle(find_classifier(model, home), RunSettings(precision="fp32"))
        for text in from_arguments(texts) if texts else from_lines(sys.stdin.buffer, "standard input"):
            explanation = explain(bundle, text.text, method, label)
            if html is not None:
                shown_later.append(explanation)
            if as_json:
                print(json.dumps(explanation.to_dict(), ensure_ascii=False), flush=True)
            else:
                console.print(as_text(explanation, colours=colours))
        if html is not None:
            write_durably(html, as_page(shown_later, str(bundle.path)))
