"""The command line: `python -m pipeline <command>`, installed as `staged-ulmfit`; each script calls one command.

Nothing here imports torch, fastai, spaCy, pyarrow or scikit-learn: `--help` and `status` answer at once.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline import counterpart, describe, ensembles, parts, reporting, runs, status, stopping
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
from pipeline.errors import UsageError
from pipeline.options import (
    DryRunOption,
    ForceOption,
    HomeOption,
    OfflineOption,
    ProtocolOption,
    RecipeOption,
    RunOption,
    SetOption,
    SourceOption,
    StopAfterOption,
    VariantOption,
)
from pipeline.progress import Reporter, printable
from pipeline.recipe import load_recipe, shipped_recipes
from pipeline.runs import PREPARE
from pipeline.stage import ENSEMBLE, STAGE_NAMES, STAGES, Stage, run_stages, select

PROGRAM = "python -m pipeline"
TOKENIZE = STAGES[1]

app = typer.Typer(
    cls=Commands, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
    help="Staged language-model fine-tuning: raw text in, a fine-tuned AWD_LSTM and a text classifier out.",
    epilog=f"Try it: {PROGRAM} run --recipe sample. Exit codes: 0 sealed, 2 usage, 3 input, 4 data, 5 diverged, "
    "6 out of memory, 7 disk, 8 locked by another job, 75 stopped (the same command goes on).",
)


@app.command()
def run(  # noqa: PLR0917
    recipe: RecipeOption = None,
    run: RunOption = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help=f"First stage to run: {', '.join(STAGE_NAMES)}.")
    ] = None,
    last: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Last stage to run.")] = None,
    overrides: SetOption = None,
    source: SourceOption = None,
    variant: VariantOption = None,
    protocol: ProtocolOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    """Run all stages; those that are sealed and unchanged are skipped.

    A recipe with variants is run once for each, as <run>-<variant>; they share one corpus where its settings are equal.
    Then comes the ensemble of those that [evaluate_ensemble] names, unless --variant or --until is given.
    """
    request = runs.Request(recipe, run, tuple(overrides or ()), source, variant, home, protocol)
    stages = select(first, last)
    plan = runs.resolve(request.offline() if offline else request)
    _carry_out(plan, stages if last else (*stages, ENSEMBLE), force, dry_run, stop_after)


@app.command(PREPARE.name, cls=StageCommand, short_help=PREPARE.summary,
             help=f"{PREPARE.summary} Reads: outside data. Writes: corpus.")
def prepare_corpus(  # noqa: PLR0917
    recipe: RecipeOption = None,
    run: RunOption = None,
    overrides: SetOption = None,
    source: SourceOption = None,
    variant: VariantOption = None,
    protocol: ProtocolOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    download_only: Annotated[
        bool, typer.Option("--download-only", help="Fetch and check the outside data, make nothing: for a login node, "
                           "before jobs without network.")
    ] = False,
    offline: OfflineOption = False,
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    request = runs.Request(recipe, run, tuple(overrides or ()), source, variant, home, protocol)
    if download_only and offline:
        raise UsageError("--download-only and --offline exclude each other.", "Leave out one of the two.")
    plan = runs.resolve(request.offline() if offline else request)
    if download_only:
        _download(plan)
    else:
        _carry_out(plan, (PREPARE,), force, dry_run, stop_after)


def _download(plan: runs.Plan) -> None:
    from pipeline.corpus.source import locate

    for one_run, _ in plan.steps((PREPARE,)):
        found = locate(one_run.recipe.prepare_corpus, None, one_run.home, Reporter())
        print(found.path or f"{one_run.recipe.prepare_corpus.kind} is generated: nothing to fetch")


def _reads(stage: Stage) -> str:
    return ", ".join((*stage.reads, *(f"{slot} if given" for slot in stage.may_read)))


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(  # noqa: PLR0917
        recipe: RecipeOption = None,
        run: RunOption = None,
        overrides: SetOption = None,
        source: SourceOption = None,
        variant: VariantOption = None,
        protocol: ProtocolOption = None,
        force: ForceOption = False,
        dry_run: DryRunOption = False,
        stop_after: StopAfterOption = None,
        home: HomeOption = Path(),
    ) -> None:
        request = runs.Request(recipe, run, tuple(overrides or ()), source, variant, home, protocol)
        _carry_out(runs.resolve(request), (stage,), force, dry_run, stop_after)

    return command


@app.command(TOKENIZE.name, cls=StageCommand, short_help=TOKENIZE.summary,
             help=f"{TOKENIZE.summary} Reads: {_reads(TOKENIZE)}. Writes: {TOKENIZE.writes}.")
def tokenize_corpus(  # noqa: PLR0917
    recipe: RecipeOption = None,
    run: RunOption = None,
    overrides: SetOption = None,
    source: SourceOption = None,
    variant: VariantOption = None,
    protocol: ProtocolOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Tokenize the I-th of N shares of the corpus and seal "
                                 "nothing: for N jobs at once. The same command without it puts them together.")
    ] = None,
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    request = runs.Request(recipe, run, tuple(overrides or ()), source, variant, home, protocol)
    if shard is None:
        _carry_out(runs.resolve(request), (TOKENIZE,), force, dry_run, stop_after)
        return
    share, reporter = parts.Share.parse(shard), Reporter()
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        for one_run in runs.resolve(request).runs:
            parts.make_share(one_run, TOKENIZE, share, reporter)


for _stage in STAGES[2:]:
    app.command(_stage.name, cls=StageCommand, short_help=_stage.summary,
                help=f"{_stage.summary} Reads: {_reads(_stage)}. Writes: {_stage.writes}.")(
        _stage_command(_stage)
    )


@app.command(ENSEMBLE.name, cls=StageCommand, short_help=ENSEMBLE.summary)
def evaluate_ensemble(  # noqa: PLR0917
    recipe: RecipeOption = None,
    run: RunOption = None,
    evaluations: Annotated[
        list[str] | None, typer.Option("--evaluation", metavar="FOLDER|RUN", help="A member: a sealed evaluation, or "
                                       "the run that has one. Give two or more, and --output.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="The folder to write, with --evaluation.")
    ] = None,
    overrides: SetOption = None,
    source: SourceOption = None,
    protocol: ProtocolOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    """Average the predictions of several evaluated classifiers and score them.

    Reads the evaluations of the variants that the recipe names as members, or any others given by --evaluation:
    tokenizers, directions and seeds may differ, corpus and labels may not. Writes: ensemble.
    """
    request = runs.Request(recipe, run, tuple(overrides or ()), source, None, home, protocol)
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
    # A refused request is not what --run should mean next time, and a free ensemble is no run.
    if plan.runs and (force or not runs.is_refused(plan, stages)):
        runs.remember(plan)
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        for one_run, wanted in plan.steps(stages):
            runs.check_shared_corpus(plan, one_run, wanted)
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
def show_status(  # noqa: PLR0917
    recipe: RecipeOption = None,
    run: RunOption = None,
    overrides: SetOption = None,
    source: SourceOption = None,
    variant: VariantOption = None,
    protocol: ProtocolOption = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help='One object {"run", "stages": [{"stage", "state", "why", "fingerprint", "metrics", '
                     '"next", "job"}]}. Without --variant, the stages of all variants are in one list, named '
                     "STAGE[VARIANT]; a shared prepare_corpus comes once."),
    ] = False,
    home: HomeOption = Path(),
) -> None:
    """Say where every stage stands, sealed, partial, stale or missing, and the exact command to go on."""
    if run is not None and recipe is None:
        runs.check_exists(run, home)
    plan = runs.resolve(runs.Request(recipe, run, tuple(overrides or ()), source, variant, home, protocol))
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
        for shipped in shipped_recipes():
            loaded = load_recipe(shipped)
            variants = f" (variants: {', '.join(loaded.variants)})" if loaded.variants else ""
            print(f"{shipped:<16}{loaded.description}{variants}")


def _print_section(title: str, rows: describe.Rows) -> None:
    print(title)
    for name, meaning in rows:
        print(f"  {name}\n      {meaning}")
    print()


def main(command: str | None = None) -> None:
    """Entry of `python -m pipeline` and, with the name of a command, of the scripts."""
    program = "staged-ulmfit" if Path(sys.argv[0]).name == "staged-ulmfit" else PROGRAM
    app(args=[*([command] if command else []), *sys.argv[1:]], prog_name=program)
