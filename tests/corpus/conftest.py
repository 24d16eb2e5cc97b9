"""Running prepare_corpus on small sources, through the stage contract."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Artifact
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.stage import Run, run_stage, stage_named

Prepare = Callable[..., Artifact]


@pytest.fixture
def said() -> io.StringIO:
    """What the stage says."""
    return io.StringIO()


@pytest.fixture
def prepare(tmp_path: Path, said: io.StringIO) -> Prepare:
    """prepare(name, force=False, seed=42, **settings) runs the stage in a home of its own."""

    def run(name: str = "run", force: bool = False, seed: int = 42, **settings: Any) -> Artifact:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
        recipe = Recipe.model_validate({"run": {"seed": seed}, "prepare_corpus": settings})
        return run_stage(Run(name, recipe, tmp_path / "home"), stage_named("prepare_corpus"), Reporter(said), force)

    return run
