"""The fault harness on our own line, a few of each fault; the long version is scripts/fault_harness.py."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.line import damage, disk, kills, locks
from faults.line.bench import ENVIRONMENT, PRELOAD, STAGES, Bench, content, leftovers
from faults.line.measure import passed
from faults.warm import Warm

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Warm("faults.line.job:main", PRELOAD, {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}) as warm:
        yield Bench(tmp_path_factory.mktemp("faults"), warm, seed=1)


def test_kills_at_random_moments_of_every_stage(bench: Bench) -> None:
    count = kills.kill_at_random_times(bench, 6)
    assert count["recovered"] == count["bit_equal"] == 6
    assert not count["leftovers"]


def test_kills_inside_saves(bench: Bench) -> None:
    count = kills.kill_inside_saves(bench, 6)
    assert count["recovered"] == count["bit_equal"] == 6
    assert not count["leftovers"]


def test_signals(bench: Bench) -> None:
    count = kills.signal_at_random_times(bench, 6)
    assert count["durable"] == 6
    assert not count["steps_lost"]


def test_spoilt_checkpoints(bench: Bench) -> None:
    count = damage.spoil_checkpoints(bench, 100, 20)
    assert count["fell_back"] == count["corruptions"] > 120
    assert not count["silent_loads"]


def test_runs_on_a_spoilt_checkpoint(bench: Bench) -> None:
    assert damage.run_on_damage(bench, 2)["fell_back"] == 2


def test_spoilt_artifacts(bench: Bench) -> None:
    count = damage.spoil_artifacts(bench, 200, 30)
    assert count["corruptions"] == 230
    assert not count["silent_loads"]


def test_files_that_cannot_grow(bench: Bench) -> None:
    count = disk.limit_file_size(bench, 2)
    assert count["named"] == count["recovered"] == count["full_disks"] > 0


def test_small_disks(bench: Bench) -> None:
    count = disk.fill_small_disks(bench, 2)
    if not count:
        pytest.skip("no file system can be mounted here")
    assert count["named"] == count["recovered"] == count["full_disks"]


def test_a_read_only_disk(bench: Bench) -> None:
    count = disk.read_only_disk(bench)
    if not count:
        pytest.skip("no file system can be mounted here")
    assert count["named"] == count["recovered"] == 1


def test_two_jobs_on_one_run(bench: Bench) -> None:
    assert locks.two_at_once(bench, 1) == {"locks": 1, "refused": 1, "taken_over": 1}


def test_the_harness_sees_what_is_not_equal(bench: Bench, tmp_path: Path) -> None:
    """A harness that calls everything equal would pass too."""
    assert not bench.equals_unbroken(tmp_path, "fp32")
    assert content(bench.unbroken["fp32"].home / STAGES["finetune_lm"]) != content(
        bench.unbroken["bf16"].home / STAGES["finetune_lm"]
    )
    (tmp_path / ".lm-fwd.partial").mkdir()
    assert leftovers(tmp_path) == [str(tmp_path / ".lm-fwd.partial")]
    good = {
        "kills": 2, "recovered": 2, "bit_equal": 2, "leftovers": 0, "signals": 1, "durable": 1, "steps_lost": 0,
        "silent_loads": 0, "spoilt_checkpoints": 3, "fell_back": 3, "full_disks": 1, "full_disks_named": 1,
        "full_disks_recovered": 1, "locks": 1, "locks_refused": 1, "locks_taken_over": 1,
    }
    assert passed(good)
    for name, number in good.items():
        assert not passed(good | {name: number + 1}), name


def test_the_command_s_help_names_what_it_counts() -> None:
    harness = ROOT / "scripts" / "fault_harness.py"
    text = subprocess.run([sys.executable, harness, "--help"], check=True, capture_output=True, text=True).stdout
    for name in ("kills", "recovered", "bit_equal", "signals", "durable", "corruptions", "silent_loads", "fell_back"):
        assert name in text
