"""The script that measures how pieces start: it runs, on a small generated archive, and prints what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline.benchmark.data import review_lengths, reviews
from pipeline.benchmark.text_data import write_archive

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_piece_start.py"


def test_each_start_has_a_loss_for_each_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    archive = tmp_path / "reviews.tar.gz"
    write_archive(archive, enumerate(reviews(review_lengths(400, 60, rng), rng)))
    done = subprocess.run(
        [
            sys.executable, str(SCRIPT), "--source", str(archive), "--documents", "40", "--steps", "2", "--seeds", "1",
            "2", "--pieces", "300",
        ],
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    title, *lines = done.stdout.splitlines()[-4:]
    assert title == "validation loss after 2 steps, seeds [1, 2]"
    for line, name in zip(lines, ("the mean row only", "equal strings", "words spelled"), strict=True):
        assert re.match(rf"{name}.* \d+\.\d{{4}} \d+\.\d{{4}}  mean \d+\.\d{{4}}", line)
