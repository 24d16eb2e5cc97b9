"""The figures of the README: kept case by case, never mixed from two machines."""

import json
import re
from pathlib import Path

import pytest

from pipeline.benchmark import record
from pipeline.benchmark.cases import CASES
from pipeline.benchmark.figures import Result
from pipeline.benchmark.table import note_of
from pipeline.errors import UsageError
from pipeline.hardware import describe_machine

ROOT = Path(__file__).parents[2]


def result(name: str, ours: float) -> Result:
    return Result(name, ours, ours / 4, 4.0, "tokens/s", None, 100.0, 200.0, {"data": "generated ids"})


def test_cases_are_replaced_one_by_one_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    record.keep(path, [result("lm-loader", 10.0), result("tokenize", 3.0)])
    record.keep(path, [result("lm-loader", 12.34567), result("archive", 1.0)])
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert [(case["name"], case["ours"]) for case in kept["cases"]] == [
        ("archive", 1.0), ("tokenize", 3.0), ("lm-loader", 12.35),
    ]
    assert kept["machine"]["cores"] >= 1
    assert kept["machine"]["memory_gb"] >= 1
    assert {"fastai", "torch", "python"} <= set(kept["versions"])
    for case in kept["cases"]:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", case["date"])
        assert re.fullmatch(r"[0-9a-f]{12}\+?", case["commit"])
    assert not re.search(r"/(home|tmp|root|work)/", path.read_text(encoding="utf-8"))


def test_figures_of_another_machine_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    record.keep(path, [result("lm-loader", 10.0), result("tokenize", 3.0)])
    elsewhere = json.loads(path.read_text(encoding="utf-8"))
    elsewhere["machine"]["processor"] = "another"
    path.write_text(json.dumps(elsewhere), encoding="utf-8")
    with pytest.raises(UsageError, match=r"has figures of another machine .* Record all cases: give no names\."):
        record.keep(path, [result("lm-loader", 11.0)])
    with pytest.raises(UsageError, match="has figures of another machine"):
        record.kept_beside(path, ["lm-loader"])
    assert json.loads(path.read_text(encoding="utf-8")) == elsewhere
    failed = Result("tokenize", more={"error": "no room"})
    record.keep(path, [result("lm-loader", 11.0), failed])
    assert [c["name"] for c in json.loads(path.read_text(encoding="utf-8"))["cases"]] == ["lm-loader"]
    record.keep(path, [result("lm-loader", 11.0), result("tokenize", 3.0)])
    assert json.loads(path.read_text(encoding="utf-8"))["machine"] == describe_machine()


def test_the_recorded_figures_are_of_full_runs_of_known_cases() -> None:
    kept = json.loads((ROOT / record.RESULTS).read_text(encoding="utf-8"))
    names = [case["name"] for case in kept["cases"]]
    assert names == [case.name for case in CASES if case.name in names]
    assert all(case["repeats"] >= 5 for case in kept["cases"] if case["fastai"] is not None)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{case['name']}`, " in readme for case in kept["cases"] if case["fastai"] is not None)


def test_notes_tell_what_the_table_has_no_column_for() -> None:
    single = Result("predict-one", 20.0, 60.0, 3.0, "ms", more={"p95_ours": 25.0, "p95_fastai": 250.4})
    assert note_of(single) == "p50 in the table; p95 25 ms, fastai 250 ms"
    more = {"copies": [1, 4], "seconds": [1.25, 5.0], "peaks_mb": [200.0, 210.0]}
    assert note_of(Result("scale-prepare", 5.0, unit="s", more=more)) == "x1, x4: 1.25, 5 s, 200, 210 MB"
    assert note_of(Result("archive", more={"error": "no such archive"})) == "no such archive"
    assert note_of(result("lm-loader", 1.0)) == ""
