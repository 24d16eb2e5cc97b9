"""The command line: `python -m pipeline <command>`, installed as `staged-ulmfit`; each script calls one command.

Nothing here imports torch, fastai, spaCy, pyarrow or scikit-learn: `--help` and `status` answer at once.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline import describe, runs, status, stopping
from pipeline.benchmark.command import benchmark
from pipeline.errors import ExitCode, PipelineError, Stopped, UsageError
from pipeline.progress import Reporter, printable
from pipeline.recipe import load_recipe, shipped_recipes
from pipeline.stage import STAGE_NAMES, STAGES, Stage, run_stages, select

PROGRAM = "python -m pipeline"


class Commands(TyperGroup):
    """Turns expected errors into one or two sentences and their exit code, for every command."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            if any(argument.encode("utf-8", "ignore").decode() != argument for argument in sys.argv):
                raise UsageError("An argument of this command is not UTF-8.", "Rename the file it names.")
            return super().invoke(ctx)
        except PipelineError as error:
            _tell(printable(str(error) if isinstance(error, Stopped) else f"error: {error}"))
            raise typer.Exit(int(error.exit_code)) from error
        except KeyboardInterrupt as error:
            _tell("stopped")
            raise typer.Exit(int(ExitCode.STOPPED)) from error


def _tell(text: str) -> None:
    """A last line; where even the log cannot be written any more, the exit code still tells."""
    try:
        typer.echo(text, err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class StageCommand(TyperCommand):
    """A stage's command; its help lists the settings of the stage."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the settings, from their definitions."""
        stage = next(s for s in STAGES if s.name == self.name)
        with formatter.section(f"Settings of [{stage.name}] (--set {stage.name}.KEY=VALUE, or in a recipe)"):
            formatter.write_dl(describe.settings_of(stage.name), col_max=36)
        phases = describe.phase_settings(stage.name)
        if phases:
            with formatter.section(f"Settings of each phase (--set {stage.name}.phases.0.KEY=VALUE)"):
                formatter.write_dl(phases, col_max=36)
        if stage.run_settings:
            with formatter.section("Settings of [run] that this stage uses (--set run.KEY=VALUE)"):
                formatter.write_dl(describe.settings_of("run", stage.run_settings), col_max=36)


app = typer.Typer(
    cls=Commands, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
    help="Staged language-model fine-tuning: raw text in, a fine-tuned AWD_LSTM and a text classifier out.",
    epilog=f"Try it: {PROGRAM} run --recipe sample. Exit codes: 0 sealed, 2 usage, 3 input, 4 data, 5 diverged, "
    "6 out of memory, 7 disk, 8 locked by another job, 75 stopped (the same command goes on).",
)

RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME|FILE", help="A shipped recipe (see `recipes`) or a .toml file. Default: the "
                 "arguments of the run's last command, else sample."),
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Name of the run. Default: the name of the recipe.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting of the recipe; may be repeated. The "
                 "settings: `recipes --settings`, or --help of each stage."),
]
SourceOption = Annotated[
    str | None,
    typer.Option("--source", metavar="PATH", help="Local data to read; short for --set prepare_corpus.source=PATH."),
]
VariantOption = Annotated[
    str | None, typer.Option("--variant", metavar="NAME", help="Only this variant of the recipe. Default: all.")
]
HomeOption = Annotated[
    Path, typer.Option("--home", metavar="DIR", help="Folder that holds data/ and models/. Default: the current one.",
                       show_default=False),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace artifacts that were made with other settings or are damaged.")
]
StopAfterOption = Annotated[
    float | None,
    typer.Option("--stop-after", metavar="MINUTES", min=0.0, help="Save and stop (exit 75) after this many minutes, "
                 "before a time limit does; the same command goes on."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; run nothing, write nothing.")]


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
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    stop_after: StopAfterOption = None,
    home: HomeOption = Path(),
) -> None:
    """Run all stages; those that are sealed and unchanged are skipped.

    A recipe with variants is run once for each, as <run>-<variant>; they share one corpus where its settings are equal.
    """
    request = runs.Request(recipe, run, tuple(overrides or ()), source, variant, home)
    _carry_out(request, select(first, last), force, dry_run, stop_after)


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(  # noqa: PLR0917
        recipe: RecipeOption = None,
        run: RunOption = None,
        overrides: SetOption = None,
        source: SourceOption = None,
        variant: VariantOption = None,
        force: ForceOption = False,
        dry_run: DryRunOption = False,
        stop_after: StopAfterOption = None,
        home: HomeOption = Path(),
    ) -> None:
        request = runs.Request(recipe, run, tuple(overrides or ()), source, variant, home)
        _carry_out(request, (stage,), force, dry_run, stop_after)

    return command


for _stage in STAGES:
    _reads = ", ".join((*_stage.reads, *(f"{slot} if given" for slot in _stage.may_read)))
    app.command(_stage.name, cls=StageCommand, short_help=_stage.summary,
                help=f"{_stage.summary} Reads: {_reads or 'outside data'}. Writes: {_stage.writes}.")(
        _stage_command(_stage)
    )


def _carry_out(
    request: runs.Request, stages: Sequence[Stage], force: bool, dry_run: bool, stop_after: float | None
) -> None:
    plan = runs.resolve(request)
    reporter = Reporter()
    _say_remembered(plan)
    if dry_run:
        status.print_dry_run(plan.steps(stages), force, sys.stdout)
        return
    if force or not runs.is_refused(plan, stages):  # a refused request is not what --run should mean next time
        runs.remember(plan)
    stopping.forget()
    stopping.stop_after(stop_after)
    with stopping.signals_ask(reporter):
        for one_run, wanted in plan.steps(stages):
            runs.check_shared_corpus(plan, one_run, wanted)
            run_stages(one_run, wanted, reporter, force)
    status.print_results(plan, stages, sys.stdout)


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
    plan = runs.resolve(runs.Request(recipe, run, tuple(overrides or ()), source, variant, home))
    found = status.rows(plan)
    if as_json:
        print(status.to_json(plan, found))
        return
    _say_remembered(plan)
    status.print_table(plan, found, sys.stdout)


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
