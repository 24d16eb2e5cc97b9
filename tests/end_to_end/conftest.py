"""A small labelled table, and the command line called as a user would."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

ROOT = Path(__file__).parents[2]
GOOD = ["wonderful", "brilliant", "touching", "clever", "delightful", "moving", "superb", "fresh"]
BAD = ["dreadful", "boring", "clumsy", "tedious", "awful", "lifeless", "dull", "stale"]
FRAMES = (
    "The {noun} was {word} from start to end.", "I found it {word}, and the {noun} even more so.",
    "A {word} film with a {word2} {noun}!", "My friends called the {noun} {word}; they were right.",
)
NOUNS = ["plot", "cast", "music", "ending", "camera", "dialogue", "story", "acting"]

Call = Callable[..., Any]


def write_reviews(path: Path, n: int = 360, seed: int = 0) -> Path:
    """A CSV file of reviews whose words tell their label; a fifth of them is the test split."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label", "split"])
        for i in range(n):
            label = ("good", "bad")[i % 2]
            words = GOOD if label == "good" else BAD
            sentences = [
                frame.format(noun=rng.choice(NOUNS), word=rng.choice(words), word2=rng.choice(words))
                for frame in rng.sample(FRAMES, rng.randint(1, 3))
            ]
            writer.writerow([f"{i}. {' '.join(sentences)}", label, "test" if i % 5 == 0 else "train"])
    return path


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


def call(*args: str, exit_code: int = 0) -> Any:
    """Call the command line in this process and hold it to its exit code."""
    result = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result


def call_process(*args: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *args], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def manifest(path: Path) -> dict[str, Any]:
    """The manifest of an artifact."""
    return json.loads((path / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, arguments: list[str]) -> Path:
    """Home of a run `smoke` that went through all stages unbroken."""
    home = tmp_path_factory.mktemp("finished")
    call("run", *arguments, "--home", str(home))
    return home
