"""Options of the `compare` command."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import stopping
from pipeline.ladder.rungs import RUNGS
from pipeline.options import ForceOption, HomeOption, SourceOption, StopAfterOption
from pipeline.progress import Reporter, printable


def command(  # noqa: PLR0917
    on: Annotated[str, typer.Option("--on", metavar="RUN|RECIPE", help="A run, or the recipe to start one of.")],
    rungs: Annotated[
        str | None,
        typer.Option("--rungs", metavar="NAME,...", help="Default: those that fit the corpus. There are: "
                     f"{', '.join(RUNGS)}."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Trainings of each rung.")] = 1,
    source: SourceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print compare.json instead of the table.")] = False,
    force: ForceOption = False,
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    """Set models side by side that get simpler and simpler, on the tokens, ids and training loop of one run.

    Each rung and seed is sealed below models/RUN/ladder; what is there already is not made again. compare.html and
    compare.json lie there too.
    """
    from pipeline import compare as comparing

    plan = comparing.plan_on(on, source, home)
    chosen = comparing.chosen_rungs(plan, None if rungs is None else rungs.split(","))
    reporter = Reporter()
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        done = comparing.compare(plan, chosen, seeds, reporter, force=force)
    if as_json:
        print((done.page.parent / comparing.FIGURES).read_text(encoding="utf-8"), end="")
        return
    print(printable(comparing.table(done.document)))
    print(f"page  {done.page}")
