"""What the command `evaluate_ensemble` means: the members that a recipe names, or evaluations from anywhere."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.pretrained import shipped_models
from pipeline.recipe import DEFAULT_RECIPE, NAME, load_recipe
from pipeline.runs import Plan, Request, resolve
from pipeline.stage import Run
from pipeline.storage import place_of_folder

_MEND = "Give --evaluation FOLDER --evaluation FOLDER --output FOLDER."


def of_recipe(request: Request) -> Plan:
    """The plan of a recipe that names members; UsageError if it names none."""
    plan = resolve(request)
    if plan.ensemble is None:
        raise UsageError(
            f"The run {plan.name} has no ensemble.",
            f"Name variants in evaluate_ensemble.members, or {_MEND[0].lower()}{_MEND[1:]}",
        )
    return plan


def of_evaluations(request: Request, evaluations: Sequence[str], output: Path | None) -> Plan:
    """An ensemble of sealed evaluations from anywhere, written to `output`: folders, or names of runs or of models that
    ship.

    Raises UsageError for a command line that cannot be right.
    """
    if output is None or len(evaluations) < 2:
        raise UsageError(
            "An ensemble of given evaluations needs two or more of them and a place.",
            _MEND,
        )
    if request.run is not None or request.source is not None or request.protocol is not None:
        raise UsageError(
            "--evaluation names what is read; --run, --source and --protocol do not go with it.", "Leave them out."
        )
    output = place_of_folder(output, "--output")
    members: dict[str, Path] = {}
    for given in evaluations:
        folder = _evaluation(given, request.home)
        name = folder.parent.name if folder.name == "evaluation" and folder.parent.name not in members else given
        if name in members:
            raise UsageError(f"--evaluation {given} is given twice.", "Name each member once.")
        members[name] = folder
    words = [word for given in evaluations for word in ("--evaluation", given)]
    words += ["--output", str(output)]
    words += [word for override in request.overrides for word in ("--set", override)]
    words += ["--recipe", request.recipe] if request.recipe is not None else []
    words += ["--home", str(request.home)] if request.home != Path() else []
    recipe = load_recipe(request.recipe or DEFAULT_RECIPE, request.overrides)
    run = Run(output.name, recipe, request.home, tuple(words), members, output)
    return Plan(output.name, request, (), ensemble=run)


def _evaluation(given: str, home: Path) -> Path:
    """The folder that is meant: itself, or the evaluation of a run or, without one, of a model that ships."""
    if Path(given).exists() or not NAME.fullmatch(given):
        return Path(given)
    of_run = home / "models" / given / "evaluation"
    shipped = shipped_models().get(given)
    return of_run if of_run.exists() or shipped is None else shipped / "evaluation"
