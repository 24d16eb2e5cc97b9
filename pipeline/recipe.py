"""Typed recipes: TOML files checked against `pipeline.settings`, with overrides from the command line.

Precedence: default < recipe file < variant of the recipe < `--set`.
"""

import copy
import difflib
import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date, time
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from pipeline.errors import UsageError
from pipeline.settings import (
    JOB_KINDS,
    EvaluateClassifierSettings,
    EvaluateEnsembleSettings,
    InputSettings,
    JobSettings,
    NumericalizeCorpusSettings,
    PrepareCorpusSettings,
    PublishedSettings,
    RunSettings,
    Section,
    SlurmSettings,
    TokenizeCorpusSettings,
    setting,
)
from pipeline.training_settings import FinetuneLMSettings, TrainClassifierSettings

DEFAULT_RECIPE = "sample"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What runs and variants may be called."""
_JOBS = ("slurm", "jobs")


class Recipe(Section):
    """All settings of one run. `variants` name overrides that each make a run of their own on the same corpus."""

    description: str = setting("", "What the recipe is for, in one line.", affects_output=False)
    run: RunSettings = RunSettings()
    inputs: InputSettings = InputSettings()
    prepare_corpus: PrepareCorpusSettings = PrepareCorpusSettings()
    tokenize_corpus: TokenizeCorpusSettings = TokenizeCorpusSettings()
    numericalize_corpus: NumericalizeCorpusSettings = NumericalizeCorpusSettings()
    finetune_lm: FinetuneLMSettings = FinetuneLMSettings()
    train_classifier: TrainClassifierSettings = TrainClassifierSettings()
    evaluate_classifier: EvaluateClassifierSettings = EvaluateClassifierSettings()
    evaluate_ensemble: EvaluateEnsembleSettings = EvaluateEnsembleSettings()
    published: PublishedSettings = PublishedSettings()
    slurm: SlurmSettings = SlurmSettings()
    variants: dict[str, dict[str, Any]] = setting({}, "Named overrides; each is run as <run>-<variant>.")

    @model_validator(mode="after")
    def _starts_from_one_thing(self) -> "Recipe":
        if self.train_classifier.encoder == "random" and self.inputs.start_classifier is not None:
            raise ValueError("train_classifier.encoder is random, but inputs.start_classifier brings one")
        return self


def check_run_name(name: str) -> None:
    """UsageError if no run can be called `name`."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a run.", "Use letters, digits, '.', '_' and '-': --run NAME.")


def shipped_recipes() -> dict[str, str]:
    """Names and TOML texts of the recipes that come with the package."""
    folder = resources.files("pipeline") / "recipes"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): f.read_text(encoding="utf-8") for f in files}


def load_recipe(name_or_file: str, overrides: Sequence[str] = (), variant: str | None = None) -> Recipe:
    """The recipe `name_or_file` (a shipped name or a .toml file) with `section.key=value` overrides applied.

    Raises UsageError for an unknown recipe, key or variant and for a value that does not fit its setting.
    """
    document = _read_toml(name_or_file)
    recipe = _validate(document, f"recipe {name_or_file}")
    values = recipe.model_dump(mode="json")
    if variant is not None:
        if variant not in recipe.variants:
            raise UsageError(f"Recipe {name_or_file} has no variant {variant!r}.", _nearest(variant, recipe.variants))
        _merge(values, recipe.variants[variant])
    elif not overrides:
        return recipe
    varied = copy.deepcopy(values)
    try:
        for override in overrides:
            _apply_override(values, override)
        return _validate(values, "--set")
    except UsageError:
        if variant is not None:  # its mistakes are not those of --set
            _validate(varied, f"variant {variant} of recipe {name_or_file}")
        raise


def _read_toml(name_or_file: str) -> dict[str, Any]:
    shipped = shipped_recipes()
    if name_or_file in shipped:
        text, where = shipped[name_or_file], f"recipe {name_or_file}"
    else:
        path = Path(name_or_file)
        if path.suffix != ".toml":
            raise UsageError(
                f"There is no recipe {name_or_file!r}.",
                _nearest(name_or_file, shipped) + f"Recipes: {', '.join(shipped)}; or the path of a .toml file.",
            )
        try:
            text, where = path.read_text(encoding="utf-8-sig"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"Recipe file {path} cannot be read: {error}.") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not valid TOML: {error}.") from error


def _merge(values: dict[str, Any], overrides: dict[str, Any]) -> None:
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = copy.deepcopy(value)


def override_value(text: str) -> Any:
    """What stands behind the `=` of an override: a TOML value or bare text (tokenize_corpus.tokenizer=subword).

    No setting is a date or a time: those are text (slurm.jobs.gpu.time=12:00:00).
    """
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if isinstance(value, date | time) else value


def _apply_override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals:
        raise UsageError(f"--set {override!r} has no '='.", "Write --set section.key=value.")
    value = override_value(text)
    node: Any = values
    *parents, last = path.split(".")
    if not parents:
        raise UsageError(f"--set {override!r} names no section.", "Write --set section.key=value.")
    try:
        for depth, key in enumerate(parents):
            if tuple(parents[:depth]) == _JOBS and key in Recipe.model_fields:
                node.setdefault(key, {})  # the first word on this stage's job
            node = node[int(key)] if isinstance(node, list) else node[key]
        if isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise UsageError(f"--set {path}: there is no such setting.", _suggest(path.split("."))) from None


def _validate(values: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        path = [str(part) for part in first["loc"]]
        others = f" ({more} more like this.)" if more else ""
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{where}: there is no setting {'.'.join(path)!r}.", _suggest(path) + others) from None
        problem = first["msg"].removeprefix("Value error, ")
        given = "" if isinstance(first["input"], dict) else f", not {first['input']!r}"
        named = f"{'.'.join(path)}: " if path else ""  # none where two sections do not fit together
        raise UsageError(f"{where}: {named}{problem}{given}.", others.strip()) from None


def setting_paths(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Dotted path of every setting, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_paths(field.annotation, f"{prefix}{name}.")


def _suggest(path: Sequence[str]) -> str:
    """The known setting nearest to `path`: first one of the same section, then the same key in another section."""
    wanted = ".".join(path)
    known = list(setting_paths())
    if tuple(path[:2]) == _JOBS:
        of = (*JOB_KINDS, *Recipe.model_fields)
        known = [".".join((*_JOBS, name, key)) for name in of for key in JobSettings.model_fields]
    section = path[0] + "."
    in_section = [p for p in known if p.startswith(section)]
    by_key = {p.rsplit(".", 1)[-1]: p for p in known if "." in p}
    near = difflib.get_close_matches(wanted, in_section, 1, 0.6)
    near = near or [by_key[k] for k in difflib.get_close_matches(path[-1], by_key, 1, 0.8)]
    near = near or difflib.get_close_matches(wanted, known, 1, 0.0)
    return f"Did you mean {near[0]!r}?"


def _nearest(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f"Did you mean {near[0]!r}? " if near else ""
