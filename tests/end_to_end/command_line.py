"""The command line called as a user would, a small table to call it on, and what it wrote."""

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

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
