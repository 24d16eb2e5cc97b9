"""Tiny sealed models and a server of them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served, running

from pipeline.serving.models import Models
from pipeline.settings import RunSettings

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("inference", "end_to_end")]  # tiny models, browser


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the runs `one`, which has a classifier and a language model, and `two`, which has a classifier."""
    from tiny_classifiers import seal_classifier
    from tiny_language_models import seal_language_model

    home = tmp_path_factory.mktemp("home")
    seal_classifier(home / "models" / "one" / "classifier-fwd")
    seal_classifier(home / "models" / "two" / "classifier-bwd", direction="bwd", seed=5)
    seal_language_model(home / "models" / "one" / "lm-fwd")
    return home


@pytest.fixture(scope="session")
def models(home: Path) -> Models:
    """Both classifiers and the language model."""
    return Models.load(["one", "two"], "one", home, RunSettings(device="cpu", precision="fp32"))


@pytest.fixture(scope="session")
def server(models: Models) -> Iterator[Served]:
    """A server of them."""
    with running(models) as found:
        yield found
