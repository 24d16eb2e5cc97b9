"""Options of the `results` command."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import HomeOption
from pipeline.progress import printable


def command(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN|FOLDER...", help="Evaluated runs of one corpus, models that ship, "
                                  "or the folders of evaluations and ensembles.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help='One list of {"run", "slot", "how", "metrics", "language_model", "stages": '
                           '[{"role", "wall_s", "peak_memory_mb", "hardware"}]}.')
    ] = False,
    home: HomeOption = Path(),
) -> None:
    """Print evaluated runs side by side: accuracy with interval and time, and what they had to beat."""
    from pipeline import results

    found = results.read_results(names, home)
    if as_json:
        print(json.dumps(results.as_json(found), ensure_ascii=False, indent=2))
    else:
        print(printable(results.table(found)))
