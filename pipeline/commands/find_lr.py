"""Options of the `find-lr` command."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import runs
from pipeline.options import HomeOption, RecipeOption, RunOption, SetOption, VariantOption
from pipeline.progress import Reporter


def command(  # noqa: PLR0917
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
