"""The `benchmark` command itself, at sizes that take seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.benchmark.cases import CASES, NAMES, select
from pipeline.errors import UsageError

ROOT = Path(__file__).parents[2]
KEYS = ["name", "ours", "fastai", "ratio", "unit", "limit_share", "peak_mb_ours", "peak_mb_fastai"]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "benchmark", "--tiny", *arguments], capture_output=True, text=True,
        check=False, env=environment,
    )


def lines(output: str) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in output.splitlines()]
    assert all(list(line)[: len(KEYS)] == KEYS for line in found)
    return {line["name"]: line for line in found}


def test_cheap_cases_run_for_real_and_keep_the_contract() -> None:
    done = benchmark("startup", "lm-loader", "--json")
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)
    assert list(found) == ["lm-loader", "startup-help", "startup-status"]
    loader = found["lm-loader"]
    assert loader["ratio"] == pytest.approx(loader["ours"] / loader["fastai"], rel=1e-3)
    assert loader["limit_share"] is None
    assert loader["peak_mb_ours"] > 100
    assert loader["peak_mb_fastai"] > 100
    assert (loader["unit"], loader["repeats"], loader["data"]) == ("tokens/s", 2, "generated ids")
    for name in ("startup-help", "startup-status"):
        assert found[name]["ours"] > 0
        assert found[name]["fastai"] is found[name]["ratio"] is found[name]["peak_mb_fastai"] is None
        assert found[name]["imports_torch"] is False
    assert "lm-loader: repeat 2 of 2: ours " in done.stderr


def test_a_case_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    (tmp_path / "no.tar.gz").write_bytes(b"this is no archive")
    done = benchmark("archive", "startup-help", "--json", "--source", str(tmp_path / "no.tar.gz"))
    assert done.returncode == 1, done.stderr
    found = lines(done.stdout)
    assert list(found) == ["archive", "startup-help"]
    assert "no.tar.gz" in found["archive"]["error"]
    assert all(found["archive"][key] is None for key in KEYS if key not in ("name", "unit"))
    assert f"error: archive: {found['archive']['error']}" in done.stderr
    assert found["startup-help"]["ours"] > 0


def test_what_cannot_be_measured_is_refused_before_anything_starts() -> None:
    unknown = benchmark("predikt")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == (
        f"error: There is no benchmark 'predikt'. Did you mean 'predict'? Benchmarks: {', '.join(NAMES)}.\n"
    )
    recorded = benchmark("--record", "startup")
    assert (recorded.returncode, recorded.stderr) == (
        2, "error: --record keeps full measurements only. Leave --quick out.\n"
    )
    absent = benchmark("archive", "--source", "nowhere.tar.gz")
    assert absent.returncode == 3
    assert absent.stderr.startswith("error: There is no archive nowhere.tar.gz. Give the IMDB archive")


def test_names_ask_for_families_and_for_single_cases() -> None:
    assert [case.name for case in select(["lm-step"])] == ["lm-step-60k", "lm-step-8k"]
    assert [case.name for case in select(["lm-step-8k"])] == ["lm-step-8k"]
    assert [case.name for case in select(["predict"])] == ["predict"]
    assert select([]) == CASES
    with pytest.raises(UsageError, match="There is no benchmark 'x'"):
        select(["startup", "x"])


def test_help_tells_what_each_case_measures() -> None:
    said = " ".join(benchmark("--help").stdout.split())
    for case in CASES:
        assert f"{case.name} {case.summary} In {case.unit}." in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_case_runs() -> None:
    done = benchmark("--json")
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)
    assert list(found) == [case.name for case in CASES]
    for case in CASES:
        line = found[case.name]
        assert (line["fastai"] is None) == (case.runner != "sides")
        assert (line["limit_share"] is None) == ("matmul" not in case.sides)
        assert ("distilbert" in line) == ("distilbert" in case.sides)
    scale = found["scale-tokenize"]
    assert scale["documents"] == [30, 120, 480]
