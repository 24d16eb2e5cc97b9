"""The comparison with other trainers counts what really happens: a short run of it, and the parts that judge."""

import importlib.util
import json
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.rivals import measure
from faults.rivals.in_save import KILL_VARIABLE
from faults.rivals.measure import kind_of
from faults.rivals.trials import Outcome, flip_a_byte, place_in_saves, steps_lost, truncate
from faults.warm import Warm

SAVES = """
import torch
from faults.rivals import in_save

def main(argv):
    in_save.arm()
    for name in argv:
        torch.save(torch.zeros(5000), name)
"""


@pytest.mark.parametrize("package", ["fastai", "transformers"])
def test_a_short_run_counts_every_fault_once(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (pip install -e '.[faults]')")
    for variable, value in measure.ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    faults = ["--kills", "2", "--corruptions", "1", "--signals", "0", "--steps", "8", "--save-every", "2"]
    monkeypatch.setattr(sys, "argv", ["measure", "--only", package, "--json", *faults])
    measure.main()
    (rival,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert rival["unbroken_bit_equal"]
    assert (rival["kills"], rival["kills_in_save"]) == (2, 1)
    assert rival["recovered"] + sum(rival["crash_messages"].values()) == 2
    assert rival["bit_equal"] <= rival["recovered"]
    kinds = ("silent_loads", "warned", "harmless", "crashed", "fell_back")
    assert sum(rival[kind] for kind in kinds) == 1
    assert rival["signals"] == rival["durable"] == 0


@pytest.fixture(scope="module")
def saves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Processes that save a tensor under each name they are given."""
    folder = tmp_path_factory.mktemp("saves")
    (folder / "saves_job.py").write_text(SAVES, encoding="utf-8")
    with Warm("saves_job:main", env={"PYTHONPATH": str(folder)}) as warm:
        yield warm


@pytest.mark.parametrize(("save", "byte", "size"), [(1, 1000, 1000), (2, 0, 0), (2, 10**9, None)])
def test_death_in_a_save_leaves_the_bytes_before_it(
    saves: Warm, tmp_path: Path, save: int, byte: int, size: int | None
) -> None:
    names = ["first", "second", "third"]
    child = saves.start(names, tmp_path, tmp_path / "log", {KILL_VARIABLE: f"{save}:{byte}"})
    victim = names[save - 1]
    whole = size is None  # the save was shorter than the byte: it ends, and the process right after it
    assert child.wait(60) == (-signal.SIGKILL if whole else -signal.SIGXFSZ)
    assert (tmp_path / victim).stat().st_size == (pytest.approx(20_000, abs=2000) if whole else size)
    assert not (tmp_path / ("second", "third")[save - 1]).exists()


def test_lost_steps_are_those_done_again() -> None:
    assert steps_lost([[1, 2, 3], [4, 5]]) == 0
    assert steps_lost([[1, 2, 3], [], [2, 3, 4], [3, 4]]) == 2 + 2
    assert steps_lost([]) == 0


def outcome(recovered: bool = True, weights: str = "a", resumed_after: int = 20, complaint: str = "") -> Outcome:
    return Outcome(recovered, weights, 0, resumed_after, -signal.SIGKILL, complaint)


@pytest.mark.parametrize(
    ("damaged", "kind"),
    [
        (outcome(recovered=False), "crashed"),
        (outcome(resumed_after=10), "fell_back"),
        (outcome(), "harmless"),
        (outcome(weights="b"), "silent_loads"),
        (outcome(weights="b", complaint="Could not load the optimizer state."), "warned"),
    ],
)
def test_each_damage_has_one_ending(damaged: Outcome, kind: str) -> None:
    assert kind_of(damaged, undamaged=outcome()) == kind


def test_damage_changes_one_byte_or_the_length(tmp_path: Path) -> None:
    path, rng = tmp_path / "file", random.Random(0)
    for _ in range(20):
        path.write_bytes(bytes(100))
        flip_a_byte(path, rng)
        assert sum(byte != 0 for byte in path.read_bytes()) == 1
        truncate(path, rng)
        assert path.stat().st_size < 100


def test_places_in_saves_follow_the_bytes() -> None:
    rng = random.Random(0)
    places = [place_in_saves([10, 0, 30], rng) for _ in range(4000)]
    assert {save for save, _ in places} == {1, 3}
    assert sum(save == 3 for save, _ in places) == pytest.approx(3000, abs=150)
    assert max(byte for save, byte in places if save == 1) == 9
