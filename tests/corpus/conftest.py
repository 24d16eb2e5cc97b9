"""Running prepare_corpus on small sources, through the stage contract."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Artifact
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.stage import Run, run_stage, stage_named

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))  # the fault harness knows how to fork fresh processes

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


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """apart.read(kind, path) reads a source in a process of its own and tells what it cost."""
    from faults.warm import Warm
    from hostile import Apart

    readers = ["pipeline.corpus.trees", "pipeline.corpus.rotten_tomatoes", "pipeline.corpus.tables"]
    environment = {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    with Warm("hostile:job", readers, environment) as warm:
        yield Apart(warm, tmp_path_factory.mktemp("apart"))
