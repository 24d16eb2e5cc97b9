"""The command line: `python -m pipeline <command>`, installed as `staged-ulmfit`; each script calls one command.

Nothing here imports torch, fastai, spaCy, pyarrow or scikit-learn: `--help` and `status` answer at once.
"""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline import counterpart, describe, ensembles, followers, parts, refusals, reporting, runs, status, stopping
from pipeline.benchmark.command import BenchmarkCommand, benchmark
from pipeline.commands import (
    compare,
    embed,
    explain,
    export,
    find_lr,
    generate,
    import_fastai,
    import_huggingface,
    neighbours,
    pack,
    predict,
    push,
    results,
    serve,
    submit,
    tokens,
)
from pipeline.commands.group import Commands, StageCommand
from pipeline.commands.naming import names_a_run
from pipeline.errors import UsageError
from pipeline.options import (
    DryRunOption,
    ForceOption,
    OfflineOption,
    SetOption,
    StopAfterOption,
    VariantOption,
)
from pipeline.progress import Reporter, escape_what_does_not_fit, printable
from pipeline.recipe import load_recipe, shipped_recipes
from pipeline.stage import ENSEMBLE, PREPARE, STAGE_NAMES, STAGES, TOKENIZE, Stage, run_stages, select

PROGRAM = "python -m pipeline"

app = typer.Typer(
    cls=Commands, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
    help="Staged language-model fine-tuning: raw text in, a fine-tuned AWD_LSTM and a text classifier out.",
    epilog=f"Try it: {PROGRAM} run --recipe sample. Exit codes: 0 sealed, 2 usage, 3 input, 4 data, 5 diverged, "
    "6 out of memory, 7 disk, 8 locked by another job, 75 stopped (the same command goes on).",
)


@app.command()
@names_a_run
def run(
    request: runs.Request,
    *,
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help=f"First stage to run: {', '.join(STAGE_NAMES)}.")
    ] = None,
    last: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Last stage to run.")] = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    stop_after: StopAfterOption = None,
) -> None:
    """Run all stages; those that are sealed and unchanged are skipped.

    A recipe with variants is run once for each, as <run>-<variant>; they share corpus, tokens and ids as far as their
    settings are those of the recipe. Then comes the ensemble of those that [evaluate_ensemble] names, unless --variant
    or --until is given.
    """
    stages = select(first, last)
    plan = runs.resolve(request.offline() if offline else request)
    _carry_out(plan, stages if last else (*stages, ENSEMBLE), force, dry_run, stop_after)


def _prepare_corpus(
    request: runs.Request,
    *,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    download_only: Annotated[
        bool, typer.Option("--download-only", help="Fetch and check the outside data, make nothing: for a login node, "
                           "before jobs without network.")
    ] = False,
    offline: OfflineOption = False,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Read and clean the I-th of N shares of a folder of "
                                 "tables and seal nothing: for N jobs at once. The same command without it puts them "
                                 "together.")
    ] = None,
    stop_after: StopAfterOption = None,
) -> None:
    if download_only:
        _refuse("--download-only", {"--offline": offline, "--force": force, "--dry-run": dry_run,
                                    "--shard": shard is not None})
        _download(runs.resolve(request), stop_after)
        return
    plan = runs.resolve(request.offline() if offline else request)
    _make_whole_or_share(plan, PREPARE, shard, force=force, dry_run=dry_run, stop_after=stop_after)


def _refuse(option: str, others: dict[str, bool]) -> None:
    """UsageError if one of the options `others` was given beside `option`."""
    given = [name for name, value in others.items() if value]
    if given:
        raise UsageError(f"{option} and {given[0]} exclude each other.", "Leave out one of the two.")


def _download(plan: runs.Plan, stop_after: float | None) -> None:
    from pipeline.corpus.source import locate

    reporter = Reporter()
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        for one_run, _ in plan.steps((PREPARE,)):
            wanted = one_run.recipe.prepare_corpus.model_copy(update={"offline": False})  # it may have been remembered
            found = locate(wanted, None, one_run.home, reporter)
            print(found.path or f"{wanted.kind} is generated: nothing to fetch")


def _tokenize_corpus(
    request: runs.Request,
    *,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Tokenize the I-th of N shares of the corpus and seal "
                                 "nothing: for N jobs at once. The same command without it puts them together.")
    ] = None,
    stop_after: StopAfterOption = None,
) -> None:
    _make_whole_or_share(runs.resolve(request), TOKENIZE, shard, force=force, dry_run=dry_run, stop_after=stop_after)


def _make_whole_or_share(
    plan: runs.Plan, stage: Stage, shard: str | None, *, force: bool, dry_run: bool, stop_after: float | None
) -> None:
    if shard is None:
        _carry_out(plan, (stage,), force, dry_run, stop_after)
        return
    _refuse("--shard", {"--force": force, "--dry-run": dry_run})
    share, reporter = parts.Share.parse(shard), Reporter()
    refusals.check_line(plan, (stage,))
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        for one_run, wanted in plan.steps((stage,)):
            refusals.check_shared(plan, one_run, wanted)
            parts.make_share(one_run, stage, share, reporter)


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(
        request: runs.Request, force: ForceOption = False, dry_run: DryRunOption = False,
        stop_after: StopAfterOption = None,
    ) -> None:
        _carry_out(runs.resolve(request), (stage,), force, dry_run, stop_after)

    return command


_OF_THEIR_OWN: dict[Stage, Callable[..., None]] = {PREPARE: _prepare_corpus, TOKENIZE: _tokenize_corpus}
for _stage in STAGES:
    _reads = ", ".join((*_stage.reads, *(f"{slot} if given" for slot in _stage.may_read)))
    app.command(_stage.name, cls=StageCommand, short_help=_stage.summary,
                help=f"{_stage.summary} Reads: {_reads or 'outside data'}. Writes: {_stage.writes}.")(
        names_a_run(_OF_THEIR_OWN.get(_stage) or _stage_command(_stage))
    )


@app.command(ENSEMBLE.name, cls=StageCommand, short_help=ENSEMBLE.summary)
@functools.partial(names_a_run, without=("variant",))
def evaluate_ensemble(
    request: runs.Request,
    *,
    evaluations: Annotated[
        list[str] | None, typer.Option("--evaluation", metavar="FOLDER|RUN", help="A member: a sealed evaluation, or "
                                       "the run or the model that has one. Give two or more, and --output.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="The folder to write, with --evaluation.")
    ] = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    stop_after: StopAfterOption = None,
) -> None:
    """Average the predictions of several evaluated classifiers and score them.

    Reads the evaluations of the variants that the recipe names as members, or any others given by --evaluation:
    tokenizers, directions and seeds may differ, corpus and labels may not. Writes: ensemble.
    """
    if not evaluations and output is None:
        _carry_out(ensembles.of_recipe(request), (ENSEMBLE,), force, dry_run, stop_after)
        return
    plan = ensembles.of_evaluations(request, tuple(evaluations or ()), output)
    _carry_out(plan, (ENSEMBLE,), force, dry_run, stop_after)


def _carry_out(
    plan: runs.Plan, stages: Sequence[Stage], force: bool, dry_run: bool, stop_after: float | None
) -> None:
    reporter = Reporter()
    _say_remembered(plan)
    if dry_run:
        status.print_dry_run(plan, stages, force, sys.stdout)
        return
    refusals.check_line(plan, stages)
    # A refused request is not what --run should mean next time, and a free ensemble is no run.
    if plan.runs and refusals.can_begin(plan, stages, force=force):
        runs.remember(plan)
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        for one_run, wanted in plan.steps(stages):
            refusals.check_shared(plan, one_run, wanted)
            run_stages(one_run, wanted, reporter, force)
            slot = wanted[-1].writes
            if plan.runs and slot in counterpart.PAGES:
                counterpart.state_both(one_run.path(slot), plan.counterpart(one_run).path(slot), slot, reporter)
    status.print_results(plan, stages, sys.stdout)
    for page in reporting.keep(plan, stages, reporter):
        print(f"{'report':<10}  {page}")


def _say_remembered(plan: runs.Plan) -> None:
    if plan.remembered:
        arguments = plan.command_line.command("run").removeprefix(f"{PROGRAM} run ")
        typer.echo(printable(f"run {plan.name} with the arguments of its last command: {arguments}"), err=True)


@app.command("status")
@names_a_run
def show_status(
    request: runs.Request,
    as_json: Annotated[
        bool,
        typer.Option("--json", help='One object {"run", "stages": [{"stage", "state", "why", "fingerprint", "metrics", '
                     '"next", "job"}]}. Without --variant, the stages of all variants are in one list, named '
                     "STAGE[VARIANT]; what variants share comes once."),
    ] = False,
) -> None:
    """Say where every stage stands, sealed, partial, stale or missing, and the exact command to go on."""
    if request.run is not None and request.recipe is None:
        runs.check_exists(request.run, request.home)
    plan = runs.resolve(request)
    found = status.rows(plan)
    if as_json:
        print(status.to_json(plan, found))
        return
    _say_remembered(plan)
    status.print_table(plan, found, sys.stdout)


app.command("submit")(submit.command)
app.command("report")(reporting.command)
app.command("results")(results.command)
app.command("predict")(predict.command)
app.command("explain")(explain.command)
app.command("generate")(generate.command)
app.command("embed")(embed.command)
app.command("neighbours")(neighbours.command)
app.command("tokens")(tokens.command)
app.command("serve")(serve.command)
app.command("import-fastai")(import_fastai.command)
app.command("find-lr")(find_lr.command)
app.command("export")(export.command)
app.command("push")(push.command)
app.command("import-huggingface")(import_huggingface.command)
app.command("pack")(pack.command)
app.command("compare")(compare.command)
app.command("benchmark", cls=BenchmarkCommand)(benchmark)


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="Print all settings of this recipe, resolved, as TOML.")
    ] = None,
    overrides: SetOption = None,
    variant: VariantOption = None,
    settings: Annotated[bool, typer.Option("--settings", help="List every setting there is and its meaning.")] = False,
) -> None:
    """List the shipped recipes, or print one with all its settings."""
    if settings:
        for section, about in describe.sections().items():
            _print_section(f"[{section}] {about}", describe.settings_of(section))
            phases = describe.phase_settings(section)
            if phases:
                _print_section(f"[[{section}.phases]]", phases)
    elif name is not None:
        print(describe.recipe_toml(load_recipe(name, tuple(overrides or ()), variant)), end="")
    elif overrides or variant:
        raise UsageError("--set and --variant need the name of a recipe.", f"Write {PROGRAM} recipes NAME.")
    else:
        width = max(map(len, shipped_recipes())) + 2
        for shipped in shipped_recipes():
            loaded = load_recipe(shipped)
            variants = f" (variants: {', '.join(loaded.variants)})" if loaded.variants else ""
            print(f"{shipped:<{width}}{loaded.description}{variants}")


def _print_section(title: str, rows: describe.Rows) -> None:
    print(title)
    for name, meaning in rows:
        print(f"  {name}\n      {meaning}")
    print()


def _open_what_is_closed() -> None:
    """A standard stream that whoever started us closed (`<&-`) reads as empty, or is written to nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # for as long as we run


def main(command: str | None = None) -> None:
    """Entry of `python -m pipeline` and, with the name of a command, of the scripts."""
    program = "staged-ulmfit" if Path(sys.argv[0]).name == "staged-ulmfit" else PROGRAM
    arguments = [*([command] if command else []), *sys.argv[1:]]
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        escape_what_does_not_fit(stream)
    followers.as_rank(lambda: app(args=arguments, prog_name=program))
