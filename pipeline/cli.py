"""The command line: `python -m pipeline <command>`, installed as `staged-ulmfit`; each script calls one command.

Nothing here imports torch, fastai, spaCy, pyarrow or scikit-learn: `--help` and `status` answer at once.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline import counterpart, describe, ensembles, reporting, runs, status, stopping
from pipeline.benchmark.command import benchmark
from pipeline.commands import Commands, StageCommand
from pipeline.errors import UsageError
from pipeline.options import (
    DryRunOption,
    ForceOption,
    HomeOption,
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
from pipeline.stage import ENSEMBLE, STAGE_NAMES, STAGES, Stage, run_stages, select

PROGRAM = "python -m pipeline"

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
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    """Run all stages; those that are sealed and unchanged are skipped.

    A recipe with variants is run once for each, as <run>-<variant>; they share one corpus where its settings are equal.
    Then comes the ensemble of those that [evaluate_ensemble] names, unless --variant or --until is given.
    """
    request = runs.Request(recipe, run, tuple(overrides or ()), source, variant, home, protocol)
    stages = select(first, last)
    _carry_out(runs.resolve(request), stages if last else (*stages, ENSEMBLE), force, dry_run, stop_after)


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


for _stage in STAGES:
    _reads = ", ".join((*_stage.reads, *(f"{slot} if given" for slot in _stage.may_read)))
    app.command(_stage.name, cls=StageCommand, short_help=_stage.summary,
                help=f"{_stage.summary} Reads: {_reads or 'outside data'}. Writes: {_stage.writes}.")(
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
                     '"next"}]}. Without --variant, the stages of all variants are in one list, named STAGE[VARIANT]; '
                     "a shared prepare_corpus comes once."),
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


app.command("report")(reporting.command)


@app.command()
def predict(  # noqa: PLR0917
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts. Default: --input, or one text a line from "
                                         "standard input.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="A .txt (one text a line), .csv, .jsonl or .parquet.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="A .jsonl, .csv or .parquet to write. Default: JSON "
                                  "lines to standard output.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="FOLDER|RUN", help="A sealed classifier, or the run that has one.")
    ] = "sample",
    id_column: Annotated[
        str | None, typer.Option("--id-column", metavar="NAME", help="Default: id if there is one, else row numbers.")
    ] = None,
    text_column: Annotated[str, typer.Option("--text-column", metavar="NAME")] = "text",
    bs: Annotated[int, typer.Option("--bs", min=1, help="Documents per batch.")] = 64,
    precision: Annotated[
        str, typer.Option("--precision", metavar="auto|fp16|bf16|fp32", help="auto: fp16 on CUDA, bf16 on a CPU that "
                          "has it, else fp32.")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:N]")] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace the output; discard an unfinished one of another input or model.")
    ] = False,
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    """Predict the class of texts with a sealed classifier: label and probabilities, in the order of the input."""
    from pipeline.inference import predict as predicting

    reporter = Reporter()
    request = predicting.PredictRequest(
        model, tuple(texts or ()), source, output, id_column, text_column, bs, precision, device, force, home
    )
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        predicting.predict(request, reporter, sys.stdin.buffer, sys.stdout.buffer)


@app.command("import-fastai")
def import_fastai(  # noqa: PLR0917
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


@app.command("find-lr")
def find_lr(  # noqa: PLR0917
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="finetune_lm or train_classifier.")],
    recipe: RecipeOption = None,
    run: RunOption = None,
    overrides: SetOption = None,
    variant: VariantOption = None,
    phase: Annotated[str | None, typer.Option("--phase", metavar="NAME", help="Default: the first phase.")] = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="The plot, .png or .svg.")] = None,
    home: HomeOption = Path(),
) -> None:
    """Suggest a learning rate for a phase of a training stage, with a plot; no artifact is changed."""
    from pipeline import find_lr as finding

    plan = runs.resolve(runs.Request(recipe, run, tuple(overrides or ()), None, variant, home))
    print(finding.find_lr(plan, stage, phase, output, Reporter()))


@app.command()
def export(  # noqa: PLR0917
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the files go.")],
    to: Annotated[Literal["fastai"], typer.Option("--to", help="Whose files to write.")] = "fastai",
    lm: Annotated[Path | None, typer.Option("--lm", metavar="FOLDER", help="A sealed language model.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="Or the run that has one.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of NAME.pth and the two files beside it. Default: lm_fwd or lm_bwd.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that hold something else.")] = False,
    home: HomeOption = Path(),
) -> None:
    """Write a sealed language model as files that fastai's load_pretrained and load_encoder read."""
    from pipeline import export_fastai as exporting

    done = exporting.export_fastai(exporting.find_lm(lm, run, home), output, name, Reporter(), force=force)
    print(f"load it with fastai (from fastai.text.all import *):\n{done.code}")


app.command()(benchmark)


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
