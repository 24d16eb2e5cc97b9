"""Several processes under a real torchrun make what one makes: losses, gradients, resumes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_worker import run_case
from tiny_training import LM, LM_STEPS, LM_VALID, language_model_task

from pipeline.errors import UsageError
from pipeline.ranks import Ranks
from pipeline.settings import RunSettings
from pipeline.training.device import resolve_device
from pipeline.training.group import Group
from pipeline.training.sharing import shared

Case = dict[str, Any]
Found = dict[str, list[dict[str, Any]]]
"""What each rank found, by the name of the case."""

TOLERANCE = 1e-5
EPOCH = LM_STEPS + LM_VALID
STILL = {"drop_mult": 0.0}
# Batch norm over a few rows and Adam at a high rate multiply rounding; what is no rounding, float64 shows.
GENTLE = [
    {"name": "head", "lr": 2e-3, "train_last": 1}, {"name": "all", "epochs": 2, "lr": 1e-3, "lr_lowest": 1e-4},
]
ON_A_GPU = {"name": "gpu", "kind": "lm", "settings": STILL, "device": "cuda"}
STILL_CLASSIFIER = {**STILL, "head_p": 0.0, "phases": GENTLE, "bs": 9}
EXACT = {**STILL, "head_p": 0.0, "alpha": 0.0, "beta": 0.0}
EQUAL: list[Case] = [
    {"name": "lm", "kind": "lm", "settings": STILL},
    {"name": "lm-five", "kind": "lm", "settings": {**STILL, "bs": 5, "random_seq_len": True}},
    {"name": "lm-accumulated", "kind": "lm", "settings": {**STILL, "bs": 3, "accumulate": 2}},
    {"name": "lm-mean", "kind": "lm", "settings": {**STILL, "average_epochs": 2}},
    {"name": "classifier", "kind": "classifier", "settings": STILL_CLASSIFIER},
    {"name": "classifier-seven", "kind": "classifier", "settings": {**STILL_CLASSIFIER, "bs": 7}},
    {"name": "classifier-accumulated", "kind": "classifier",
     "settings": {**STILL_CLASSIFIER, "bs": 6, "accumulate": 2}},
    {"name": "classifier-cut", "kind": "classifier", "settings": {**STILL_CLASSIFIER, "max_len": 20}},
]
IN_FLOAT64: list[Case] = [  # batches of four and two rows, for three ranks too
    {"name": "exact", "kind": "classifier", "settings": EXACT, "gradients": True},
    {"name": "exact-five", "kind": "classifier", "settings": {**EXACT, "bs": 5, "accumulate": 2}, "gradients": True},
    {"name": "exact-to-float32", "kind": "classifier", "settings": {**STILL, "head_p": 0.0}, "gradients": True},
]
WITH_DROPOUT: list[Case] = [
    *({"name": name, "kind": "lm", "settings": {}} for name in ("lm-once", "lm-twice")),
    *({"name": name, "kind": "classifier", "settings": {}} for name in ("classifier-once", "classifier-twice")),
    *({"name": f"{kind}-fp16", "kind": kind, "settings": {}, "precision": "fp16"} for kind in ("lm", "classifier")),
]


def interrupted(name: str, kind: str, settings: dict[str, Any], moments: list[int], resume: str = "") -> list[Case]:
    """Cases that train until a rank is asked to stop, again and again, and then to the end."""
    at = {"kind": kind, "settings": settings, "resume": resume or name}
    stops = [{"name": f"{name}-{m}", **at, "stop_at": m, "stopper": i % 2} for i, m in enumerate(moments)]
    return [*stops, {"name": name, **at}]


RESUMED = [
    *interrupted("lm-broken", "lm", {}, [3, EPOCH - 1, 2]),
    *interrupted("classifier-broken", "classifier", {}, [2, 4, 3]),
]
TO_ONE = [
    {"name": "lm-to-one", "kind": "lm", "settings": STILL, "stop_at": EPOCH - 1, "stopper": 1},
    {"name": "lm-to-one-in-a-step", "kind": "lm", "settings": {**STILL, "bs": 3, "accumulate": 2}, "stop_at": 8,
     "stopper": 0},
    {"name": "classifier-to-one", "kind": "classifier", "settings": STILL_CLASSIFIER, "stop_at": 4, "stopper": 1},
]


def torchrun(processes: int, folder: Path, cases: list[Case]) -> Found:
    """Every case, by that many processes."""
    folder.mkdir(exist_ok=True)
    placed = [{**case, "resume": str(folder / case.get("resume", case["name"]))} for case in cases]
    (folder / "cases.json").write_text(json.dumps(placed), encoding="utf-8")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--",
         str(Path(__file__).with_name("rank_worker.py")), str(folder / "cases.json"), str(folder)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        case["name"]: [
            json.loads((folder / f"{case['name']}-{rank}.json").read_text(encoding="utf-8"))
            for rank in range(processes)
        ]
        for case in cases
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one process makes of the cases without dropout."""
    folder = tmp_path_factory.mktemp("alone")
    return {case["name"]: run_case({**case, "resume": str(folder / case["name"])}) for case in [*EQUAL, *IN_FLOAT64]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes train."""
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(place: Path) -> Found:
    """What two processes make of all cases."""
    return torchrun(2, place, [*EQUAL, *IN_FLOAT64, *WITH_DROPOUT, *RESUMED, *TO_ONE])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What three processes make of the cases without dropout."""
    return torchrun(3, tmp_path_factory.mktemp("three"), [*EQUAL, *IN_FLOAT64])


def assert_like(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["losses"] == pytest.approx(expected["losses"], abs=TOLERANCE)
    assert len(found["history"]) == len(expected["history"])
    for ours, theirs in zip(found["history"], expected["history"], strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("processes", ["two", "three"])
def test_the_losses_are_those_of_one_process(
    processes: str, alone: dict[str, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    found: Found = request.getfixturevalue(processes)
    for case in EQUAL:
        for of_rank in found[case["name"]]:
            assert_like(of_rank, alone[case["name"]])
            assert of_rank["weights"] == found[case["name"]][0]["weights"], f"{case['name']}: ranks differ"


@pytest.mark.parametrize("processes", ["two", "three"])
def test_the_gradients_are_those_of_one_process(
    processes: str, alone: dict[str, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """In float64, where rounding hides nothing."""
    found: Found = request.getfixturevalue(processes)
    for case in IN_FLOAT64:
        one, many = alone[case["name"]], found[case["name"]][0]
        wanted = 1e-9 if "alpha" in case["settings"] else TOLERANCE  # they are summed in float32
        assert len(one["gradients"]) == len(many["gradients"]) > 3
        for ours, theirs in zip(many["gradients"], one["gradients"], strict=True):
            assert ours.keys() == theirs.keys()
            for name, expected in theirs.items():
                assert ours[name] == pytest.approx(expected, rel=wanted, abs=wanted / 10), name
        assert many["losses"] == pytest.approx(one["losses"], abs=max(wanted, 1e-6))  # a loss is float32


def test_with_dropout_two_runs_are_bit_equal(two: Found) -> None:
    for kind in ("lm", "classifier"):
        once, twice = two[f"{kind}-once"], two[f"{kind}-twice"]
        assert len({of_rank["weights"] for of_rank in (*once, *twice)}) == 1
        assert once[0]["losses"] == twice[0]["losses"]
        assert once[0]["history"] == twice[0]["history"]
        assert two[f"{kind}-fp16"][0]["weights"] == two[f"{kind}-fp16"][1]["weights"]


@pytest.mark.parametrize("kind", ["lm", "classifier"])
def test_a_stop_of_any_rank_stops_all_and_the_resume_is_bit_equal(kind: str, two: Found) -> None:
    stopped = [found for name, found in two.items() if name.startswith(f"{kind}-broken-")]
    assert len(stopped) == 3
    for of_ranks in stopped:
        first, second = (of_rank["stopped"].partition(" was stopped by ")[0] for of_rank in of_ranks)
        assert first == second
    assert "a signal to another process" in stopped[1][0]["stopped"]
    assert two[f"{kind}-broken"][0]["weights"] == two[f"{kind}-once"][0]["weights"]
    assert two[f"{kind}-broken"][0]["history"] == two[f"{kind}-once"][0]["history"]


@pytest.mark.timeout(1200)
def test_a_resume_with_another_number_of_processes_ends_with_the_same_losses(
    place: Path, two: Found, alone: dict[str, dict[str, Any]]
) -> None:
    """From two to one, and back to two for the rest."""
    expected = {"lm-to-one": "lm", "lm-to-one-in-a-step": "lm-accumulated", "classifier-to-one": "classifier"}
    back = []
    for case, moment in zip(TO_ONE, (5, 7, 2), strict=True):
        begun = {**case, "resume": str(place / case["name"])}
        again = run_case({**begun, "stop_at": moment, "stopper": 0})
        assert "was stopped" in again["stopped"]
        start = len(two[case["name"]][0]["losses"])
        whole = alone[expected[case["name"]]]["losses"]
        assert again["losses"] == pytest.approx(whole[start : start + len(again["losses"])], abs=TOLERANCE)
        back.append({**case, "name": f"{case['name']}-and-back", "resume": begun["resume"], "stop_at": None})
    found = torchrun(2, place, back)
    for case in TO_ONE:
        end, whole = found[f"{case['name']}-and-back"][0], alone[expected[case["name"]]]
        assert "had processes 1, now 2" in end["log"]
        assert end["losses"] == pytest.approx(whole["losses"][-len(end["losses"]) :], abs=TOLERANCE)
        assert [r["valid_loss"] for r in end["history"]] == pytest.approx(
            [r["valid_loss"] for r in whole["history"]], abs=TOLERANCE
        )


def test_a_batch_with_fewer_rows_than_processes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"finetune_lm\.bs is 4, and there are 5 processes"):
        shared(language_model_task(LM, ()), Group(Ranks(4, 5)))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_end_with_the_losses_of_one(tmp_path: Path) -> None:
    assert [str(resolve_device(RunSettings(), Ranks(r, 2, r)).device) for r in (0, 1)] == ["cuda:0", "cuda:1"]
    one = run_case({**ON_A_GPU, "resume": str(tmp_path / "one")})
    found = torchrun(2, tmp_path / "two", [ON_A_GPU])["gpu"]
    assert found[0]["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert found[0]["weights"] == found[1]["weights"]
