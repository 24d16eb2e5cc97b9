"""The draws of S6 that scripts/measure_name_draws.py makes: a language first, and its lines out of training."""

import csv
import runpy
from collections import Counter
from pathlib import Path

import pytest

from pipeline.corpus.documents import RawDocument

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "measure_name_draws.py"), run_name="not main")
drawn, write_table = SCRIPT["drawn"], SCRIPT["write_table"]


@pytest.fixture
def documents() -> list[RawDocument]:
    """Four languages: 900 names, 300, 200, and 100 lines of ten names."""
    sizes = {"Arabic": 900, "Czech": 300, "Greek": 200}
    found = [RawDocument(f"{label}/{i}", "train", label, None, f"{label}{i}") for label, n in sizes.items()
             for i in range(n)]
    return [*found, *(RawDocument(f"Irish/{i}", "train", "Irish", None, f"Irish{i % 10}") for i in range(100))]


def test_languages_are_drawn_alike(documents: list[RawDocument]) -> None:
    counts: Counter[str] = Counter()
    for seed in range(20):
        tested = drawn(documents, seed)
        assert len(tested) == 100
        counts.update(doc_id.partition("/")[0] for doc_id in tested)
    assert all(400 < count < 600 for count in counts.values()), counts  # 500 each, standard deviation 19
    assert drawn(documents, 0) == drawn(documents, 0) != drawn(documents, 1)


def test_a_tested_line_leaves_training_and_its_equals_stay(documents: list[RawDocument], tmp_path: Path) -> None:
    tested = {"Arabic/5", "Irish/3", "Irish/13", "Irish/4"}
    known = write_table(documents, tested, tmp_path / "t.csv")
    assert known == 3 / 4
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(documents)
    assert {row["id"] for row in rows if row["split"] == "test"} == tested
    assert sum(row["split"] == "train" and row["text"] == "Irish3" for row in rows) == 8
