"""What data/<run>/run.json remembers: the arguments of a run's last command, with paths that mean the same anywhere.

A path below the home is written as seen from there, so that a home can be moved; any other is written in full.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import InputError, StorageError
from pipeline.protocol import Protocol
from pipeline.recipe import override_value

ARGUMENTS_FILE = "run.json"
_SOURCE, _INPUTS = "prepare_corpus.source", "inputs."
"""Settings that are paths."""


class Remembered(BaseModel):
    """Content of run.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    set: list[str]
    variant: str | None
    source: str | None
    protocol: Protocol = "honest"

    def _mapped(self, path: Callable[[str], str], given: Callable[[str], str]) -> "Remembered":
        """A copy with other paths: those of recipe file and source by `path`, those of [inputs] by `given`."""
        return self.model_copy(update={
            "recipe": path(self.recipe) if self.recipe.endswith(".toml") else self.recipe,
            "set": [_override(override, path, given) for override in self.set],
            "source": None if self.source is None else path(self.source),
        })

    def write(self, home: Path, name: str) -> None:
        """Write what the run `name` remembers; StorageError if that cannot be."""
        path = _path(home, name)
        content = self._mapped(lambda value: _kept(value, home), lambda value: _kept_input(value, home)).model_dump()
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
            unfinished.replace(path)
        except OSError as error:
            raise StorageError(
                f"{path} could not be written: {error.strerror}.", "Free some space or mend the permissions."
            ) from error


def last_of(home: Path, name: str) -> Remembered | None:
    """The arguments of the last command of the run `name`, as they are given in this folder; None: there was none.

    Raises InputError if the file is damaged.
    """
    path = _path(home, name)
    try:
        found = Remembered.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged.", "Name the recipe of the run with --recipe.") from error
    return found._mapped(lambda value: _found(value, home), lambda value: _found_input(value, home))


def _path(home: Path, name: str) -> Path:
    return home / "data" / name / ARGUMENTS_FILE


def _override(override: str, path: Callable[[str], str], given: Callable[[str], str]) -> str:
    key, _, text = override.partition("=")
    value = override_value(text)
    if not (key == _SOURCE or key.startswith(_INPUTS)) or not isinstance(value, str) or value == "none":
        return override
    mapped = path(value) if key == _SOURCE else given(value)
    if mapped == value:
        return override
    return f"{key}={mapped if override_value(mapped) == mapped else json.dumps(mapped, ensure_ascii=False)}"


def _kept(value: str, home: Path) -> str:
    path, base = Path(os.path.expanduser(value)).absolute(), home.absolute()
    return str(path.relative_to(base) if path.is_relative_to(base) else path)


def _kept_input(value: str, home: Path) -> str:
    """A single word is written in full, or left alone if no such file is here: it may be the name of a model."""
    path = Path(os.path.expanduser(value))
    if not path.exists():
        return value
    kept = _kept(value, home)
    return kept if os.sep in kept else str(path.absolute())


def _found(value: str, home: Path) -> str:
    path = home / value
    # Earlier versions wrote paths as they were given, from whatever folder that was.
    return value if not path.exists() and Path(value).exists() else str(path)


def _found_input(value: str, home: Path) -> str:
    path = home / value
    return str(path) if os.sep in value and path.exists() else value
