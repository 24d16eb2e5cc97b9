"""The command `find-lr`: a learning rate for a phase of a training stage, by a range test that changes no artifact."""

import importlib
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from pipeline.errors import UsageError
from pipeline.picture import check_picture, write_picture
from pipeline.progress import Reporter
from pipeline.runs import Plan
from pipeline.stage import Run, StageContext, open_inputs, stage_named
from pipeline.training.lr_finder import Sweep, sweep
from pipeline.training_settings import Phase

TRAINING_STAGES = ("finetune_lm", "train_classifier")


def find_lr(plan: Plan, stage_name: str, phase_name: str | None, output: Path | None, reporter: Reporter) -> str:
    """Sweep the rates of one phase of a stage and write the plot; what to tell the user.

    The weights are those the stage begins with, also for a later phase. Raises UsageError for a stage that does not
    train, an unknown phase, a plot that is neither PNG nor SVG, or several runs; what opening the stage's inputs
    raises; DivergedError if the loss is no number at once.
    """
    if stage_name not in TRAINING_STAGES:
        raise UsageError(f"{stage_name!r} has no learning rate.", f"Stages that train: {', '.join(TRAINING_STAGES)}.")
    if len(plan.runs) != 1:
        raise UsageError(f"The recipe has {len(plan.runs)} variants.", "Choose one with --variant.")
    run = plan.runs[0]
    settings = getattr(run.recipe, stage_name)
    names = [phase.name for phase in settings.phases]
    if phase_name is not None and phase_name not in names:
        raise UsageError(f"{stage_name} has no phase {phase_name!r}.", f"Phases: {', '.join(names)}.")
    number = 0 if phase_name is None else names.index(phase_name)
    phase: Phase = settings.phases[number]
    target = output or run.home / "models" / run.name / f"find-lr-{stage_name}-{phase.name}.png"
    check_picture(target, "--output", make_folder=True)
    found = _sweep(run, stage_name, number, reporter)
    title = f"{stage_name}, phase {phase.name}"
    write_picture(target, (7, 4.2), lambda figure: plot(found, phase, title, figure))
    return describe(found, phase, f"{stage_name}.phases.{number}", target)


def _sweep(run: Run, stage_name: str, number: int, reporter: Reporter) -> Sweep:
    stage, settings = stage_named(stage_name), getattr(run.recipe, stage_name)
    inputs = open_inputs(run, stage)
    with tempfile.TemporaryDirectory() as work:  # nothing is written there
        context = StageContext(run.recipe, settings, inputs, None, "", Path(work), False, reporter)
        prepared = importlib.import_module(f"pipeline.stages.{stage_name}").prepare(context)
        return sweep(
            prepared.task, settings, settings.phases[number], device=prepared.device, seed=run.recipe.run.seed,
            phase_number=number,
        )


def describe(found: Sweep, phase: Phase, path: str, plot_file: Path) -> str:
    """The suggestions, the plot and the options that use the safer of them."""
    options = [f"--set {path}.lr={found.valley:.1e}"]
    if phase.lr_lowest is not None:
        options.append(f"--set {path}.lr_lowest={found.valley * phase.lr_lowest / phase.lr:.1e}")
    return "\n".join([
        f"valley {found.valley:.1e}   on the longest descent of the loss: try this first",
        f"steep  {found.steep:.1e}   where the loss falls fastest",
        f"now    {phase.lr:.1e}   the recipe's",
        f"plot   {plot_file}",
        f"set it {' '.join(options)}",
    ])


def plot(found: Sweep, phase: Phase, title: str, figure: Figure) -> None:
    """Loss against rate with the suggestions and the present rate."""
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses, color="0.25")
    shown = {f"valley {found.valley:.1e}": found.valley, f"steep {found.steep:.1e}": found.steep}
    for (label, rate), colour in zip(shown.items(), ("tab:orange", "tab:green"), strict=True):
        nearest = min(range(len(found.rates)), key=lambda i: abs(found.rates[i] - rate))
        axes.plot(rate, found.losses[nearest], "o", color=colour, label=label)
    axes.axvline(phase.lr, linestyle=":", color="0.5", label=f"the recipe's {phase.lr:.1e}")
    axes.set(xscale="log", xlabel="learning rate of the last layer group", ylabel="smoothed training loss", title=title)
    axes.legend()
