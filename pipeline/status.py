"""Where the stages of a run stand, for people and for programs, and the results of what is sealed."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TextIO

from pipeline.artifact import Manifest
from pipeline.progress import format_duration
from pipeline.protocol import protocol_of
from pipeline.report.summary import ensemble_table, notes, result_table
from pipeline.runs import Plan, needed, needs_force
from pipeline.settings import PublishedSettings
from pipeline.slurm.queue import jobs_of_runs
from pipeline.stage import ENSEMBLE, STAGES, Run, Stage
from pipeline.standing import StageStatus

HEADLINES = {
    "corpus": ("documents",),
    "tokens": ("tokens", "types"),
    "ids": ("vocabulary", "unknown_share.valid"),
    "lm": ("perplexity", "accuracy"),
    "classifier": ("accuracy", "valid_loss"),
    "evaluation": ("accuracy", "macro_f1"),
    "ensemble": ("accuracy", "macro_f1"),
}
"""The metrics of each kind of artifact that the table shows; counts by split are added up."""
_STYLES = {"sealed": "green", "partial": "yellow", "stale": "red", "missing": "dim"}


@dataclass(frozen=True)
class Row:
    """One stage of one run."""

    run: Run
    label: str
    """Name of the stage; with the variant in brackets where the table shows several variants."""
    stage: StageStatus
    needed: bool
    next: str | None
    """The command to go on with; None if there is nothing to do."""
    job: str | None = None
    """Id and state of the batch job that was last handed in for it; None if there was none."""

    @property
    def why(self) -> str:
        """Why the stage is in its state."""
        return self.stage.why if self.needed else "not needed: the recipe's [inputs] name what comes after it"


def rows(plan: Plan) -> list[Row]:
    """Every stage of every run of `plan`; what variants share comes once, first."""
    found: list[Row] = []
    if plan.shared is not None:
        once = plan.made_once(STAGES)
        found += _with_commands(plan.shared, [stage for stage in plan.status(plan.shared) if stage.stage in once], "")
    for run in plan.runs:
        stages = [stage for stage in plan.status(run) if stage.stage not in plan.shared_by(run)]
        several = len(plan.runs) > 1
        found += _with_commands(run, stages, f"[{plan.variant_of(run)}]" if several else "")
    if plan.ensemble is not None:
        (stage,) = plan.status(plan.ensemble)
        row = Row(plan.ensemble, ENSEMBLE.name, stage, True, None)
        found.append(row if stage.state == "sealed" else replace(row, next=next_command(plan, [*found, row])))
    jobs = jobs_of_runs(plan.request.home, {row.run.name for row in found})
    return [replace(row, job=jobs.get((row.run.name, row.stage.stage.name))) for row in found]


def _with_commands(run: Run, stages: Sequence[StageStatus], suffix: str) -> Iterator[Row]:
    wanted = needed(run, STAGES)
    first, force = True, False
    for stage in stages:
        command = None
        if stage.state != "sealed" and stage.stage in wanted:
            force = force or needs_force(stage)
            extra = ["--force"] if force else []
            if first:
                command = run.command(stage.stage.name, *extra)
            elif stage.stage is STAGES[-1]:
                command = run.command("run", *extra)
            else:
                command = run.command("run", "--until", stage.stage.name, *extra)
            first = False
        yield Row(run, stage.stage.name + suffix, stage, stage.stage in wanted or stage.state == "sealed", command)


def next_command(plan: Plan, found: Sequence[Row]) -> str | None:
    """The command that seals all that is not sealed; None if all is."""
    open_rows = [row for row in found if row.next or (row.needed and row.stage.state != "sealed")]
    if not open_rows:
        return None
    force = ["--force"] if any(needs_force(row.stage) for row in open_rows) else []
    return plan.command_line.command("run", *force)


def to_json(plan: Plan, found: Sequence[Row]) -> str:
    """`{"run", "stages": [{"stage", "state", "why", "fingerprint", "metrics", "next", "job"}]}` as text."""
    stages = [
        {
            "stage": row.label,
            "state": row.stage.state,
            "why": row.why,
            "fingerprint": row.stage.fingerprint,
            "metrics": row.stage.manifest.metrics if row.stage.manifest and row.stage.state == "sealed" else None,
            "next": row.next,
            "job": row.job,
        }
        for row in found
    ]
    name = plan.runs[0].name if len(plan.runs) == 1 else plan.name
    return json.dumps({"run": name, "stages": stages}, ensure_ascii=False, indent=2)


def print_table(plan: Plan, found: Sequence[Row], stream: TextIO) -> None:
    """A table for people: coloured on a terminal, plain aligned text elsewhere; then the command to go on with."""
    header = ["stage", "state", "why", "metrics", "age"]
    cells = [[row.label, row.stage.state, row.why, _headline(row), _age(row.stage.manifest)] for row in found]
    if any(row.job for row in found):
        header.append("job")
        cells = [[*line, row.job or ""] for line, row in zip(cells, found, strict=True)]
    if stream.isatty():
        _print_rich(header, cells, stream)
    else:
        _print_plain(header, cells, stream)
    command = next_command(plan, found)
    print(f"next: {command}" if command else "next: nothing to do, every stage is sealed", file=stream)


def _print_rich(header: Sequence[str], cells: Sequence[Sequence[str]], stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, pad_edge=False)
    for line in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in line))
    Console(file=stream).print(table)


def _print_plain(header: Sequence[str], cells: Sequence[Sequence[str]], stream: TextIO) -> None:
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for line in (header, *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), file=stream)


def _headline(row: Row) -> str:
    manifest = row.stage.manifest
    if manifest is None or row.stage.state != "sealed":
        return ""
    found = {name: _metric(manifest.metrics, name) for name in HEADLINES[manifest.slot]}
    shown = [f"{name} {text}" for name, text in found.items() if text]
    published = ["published protocol"] if protocol_of(manifest.metrics) == "published" else []
    return ", ".join([*shown, *published])


def _metric(metrics: dict[str, Any], name: str) -> str:
    value: Any = metrics
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, dict):
        value = sum(count for count in value.values() if isinstance(count, int))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else ""


def _age(manifest: Manifest | None) -> str:
    if manifest is None:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(manifest.created)).total_seconds()
    return format_duration(max(seconds, 0)) if seconds < 86400 else f"{seconds / 86400:.0f} days"


def print_dry_run(plan: Plan, stages: Sequence[Stage], force: bool, stream: TextIO) -> None:
    """What a command would do, stage by stage, and the command that does each part alone."""
    for run, wanted in plan.steps(stages):
        print(f"run {run.name}", file=stream)
        for stage in plan.status(run):
            if stage.stage not in wanted:
                continue
            print(f"  {stage.stage.name}: {_intention(stage, force)}", file=stream)
            print(f"    {stage.state}: {stage.why}", file=stream)
            if stage.state != "sealed":
                print(f"    {run.command(stage.stage.name, *(['--force'] if force else []))}", file=stream)


def _intention(stage: StageStatus, force: bool) -> str:
    if stage.state == "sealed":
        return "would use what is there" if stage.given else "would be skipped"
    if stage.given:
        return "would stop"
    if needs_force(stage) and not force:
        return "would stop and ask for --force, unless what comes before it is made anew"
    return "would go on" if stage.state == "partial" else "would be replaced" if needs_force(stage) else "would run"


def print_results(plan: Plan, stages: Sequence[Stage], stream: TextIO) -> None:
    """The results of what the stages of a finished command sealed, and where each artifact is."""
    for run, wanted in plan.steps(stages):
        metrics: dict[str, dict[str, Any]] = {}
        paths = []
        for stage in plan.status(run):
            if stage.manifest is not None and (stage.stage in wanted or stage.given):
                metrics[stage.stage.writes] = stage.manifest.metrics
                paths.append((stage.stage.writes, str(stage.path)))
        title = [f"Run {run.name}"] if len(plan.runs) > 1 or plan.shared else []
        table = _results(metrics, run.recipe.published)
        lines = [*title, *([table, ""] if table else []), *(f"{slot:<10}  {path}" for slot, path in paths)]
        print("\n" + "\n".join(lines), file=stream)


def _results(metrics: dict[str, dict[str, Any]], published: PublishedSettings) -> str:
    if "ensemble" in metrics:
        return ensemble_table(metrics["ensemble"])
    if "evaluation" in metrics:
        return result_table(metrics["evaluation"], metrics.get("lm"), published)
    if "lm" in metrics:
        shown = ("perplexity", "accuracy", "bits_per_character")
        found = {name: metrics["lm"][name] for name in shown if metrics["lm"].get(name) is not None}
        lines = [f"{name.replace('_', ' '):<20}{value:>10.4f}" for name, value in found.items()]
        return "\n".join([*lines, *notes(metrics["lm"])])
    return ""


