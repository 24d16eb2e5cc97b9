"""The `report` command, and the report that a finished run leaves behind. Imports nothing heavy until it writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline import runs
from pipeline.artifact import read_manifest
from pipeline.errors import UsageError
from pipeline.options import HomeOption
from pipeline.progress import Reporter
from pipeline.stage import Run, Stage

EVALUATES = "evaluate_classifier"
PAGE, FIGURES = "report.html", "report.json"


def folder_of(run: Run) -> Path:
    """Where a run's report lies unless told otherwise; not an artifact: it can be written again at any time."""
    return run.home / "models" / run.name / "report"


def command(
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="The run. Default: sample.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="Default: models/RUN/report.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="NAME", help="Only this variant of the run. Default: all.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="FOLDER", help="Write TensorBoard event files there, too.")
    ] = None,
    home: HomeOption = Path(),
) -> None:
    """Write the report of a run: one HTML page that needs nothing else, a Markdown twin, and its figures as JSON."""
    if run is not None:
        runs.check_exists(run, home)
    plan = runs.resolve(runs.Request(run=run, variant=variant, home=home))
    for page in report(plan, output, tensorboard, Reporter()):
        print(page)


def report(plan: runs.Plan, output: Path | None, tensorboard: Path | None, reporter: Reporter) -> list[Path]:
    """Write the report of every run of `plan`; the pages. With `tensorboard`, event files go there too.

    Raises UsageError if several runs would share one folder, InputError if there is nothing to report.
    """
    if len(plan.runs) > 1 and (output is not None or tensorboard is not None):
        names = ", ".join(run.name.removeprefix(f"{plan.name}-") for run in plan.runs)
        raise UsageError(f"The run {plan.name} has several variants.", f"Name one with --variant: {names}.")
    from pipeline.report.page import write_report

    pages = [write_report(run, output or folder_of(run)) for run in plan.runs]
    if tensorboard is not None:
        from pipeline.report.event_files import write_events

        for folder in write_events(plan.runs[0], tensorboard):
            reporter.line(f"report: TensorBoard event files in {folder}")
    return pages


def keep(plan: runs.Plan, stages: Sequence[Stage], reporter: Reporter) -> list[Path]:
    """The reports of the runs that `stages` evaluated, written where they are not there yet.

    A report that cannot be written is no failure of the run: its artifacts are sealed. The log says why.
    """
    pages = []
    for run, wanted in plan.steps(stages):
        if any(stage.name == EVALUATES for stage in wanted):
            try:
                pages.append(_kept(run))
            except Exception as error:  # whatever it is
                reporter.line(f"report: not written: {error}")
    return pages


def _kept(run: Run) -> Path:
    folder = folder_of(run)
    evaluation = read_manifest(run.path("evaluation"))
    assert evaluation is not None  # it was made or found just before
    if _figures_of(folder) == evaluation.files["metrics.json"].sha256 and (folder / PAGE).is_file():
        return folder / PAGE
    from pipeline.report.page import write_report

    return write_report(run, folder)


def _figures_of(folder: Path) -> str | None:
    """SHA-256 of the metrics.json that the report in `folder` shows; None if there is none.

    Not the evaluation's fingerprint: that stays when its figures are joined by those of the other protocol.
    """
    try:
        found: str = json.loads((folder / FIGURES).read_text(encoding="utf-8"))["metrics_sha256"]
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None
