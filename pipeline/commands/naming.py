"""The options by which commands name a run, told once."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.options import (
    HomeOption,
    ProtocolOption,
    RecipeOption,
    RunOption,
    SetOption,
    SourceOption,
    VariantOption,
)
from pipeline.runs import Request


def _request(
    *, recipe: RecipeOption = None, run: RunOption = None, overrides: SetOption = None, source: SourceOption = None,
    variant: VariantOption = None, protocol: ProtocolOption = None, home: HomeOption = Path(),
) -> Request:
    return Request(recipe, run, tuple(overrides or ()), source, variant, home, protocol)


def names_a_run(command: Callable[..., None], without: tuple[str, ...] = ()) -> Callable[..., None]:
    """`command(request, ...)` as a command that has the options of a request, but for `without`, beside its own."""
    shared = {name: p for name, p in inspect.signature(_request).parameters.items() if name not in without}
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def called(**values: Any) -> None:
        command(_request(**{name: values.pop(name) for name in shared}), **values)

    last = shared["home"]
    parameters = [*(p for p in shared.values() if p is not last), *own, last]
    signature = inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters])
    vars(called)["__signature__"] = signature
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called
