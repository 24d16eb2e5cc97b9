"""A small labelled table and a finished run on it."""

from pathlib import Path

import pytest
from command_line import call, write_reviews


@pytest.fixture(scope="session")
def reviews_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table."""
    return write_reviews(tmp_path_factory.mktemp("table") / "reviews.csv")


@pytest.fixture(scope="session")
def arguments(reviews_csv: Path) -> list[str]:
    """What makes every command below read that table: tiny sizes, on the CPU."""
    return [
        "--recipe", "smoke", "--source", str(reviews_csv), "--set", "prepare_corpus.split_column=split",
        "--set", "run.device=cpu", "--set", "run.precision=fp32", "--set", "tokenize_corpus.workers=1",
    ]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, arguments: list[str]) -> Path:
    """Home of a run `smoke` that went through all stages unbroken."""
    home = tmp_path_factory.mktemp("finished")
    call("run", *arguments, "--home", str(home))
    return home
