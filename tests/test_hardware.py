"""What a manifest says of the machine."""

import pytest

from pipeline.hardware import describe_machine
from pipeline.machine import usable_cores


@pytest.mark.parametrize(
    ("variable", "threads"), [("3", 3), ("2,1", 2), ("", usable_cores()), ("many", usable_cores())]
)
def test_threads_are_those_of_the_first_level(monkeypatch: pytest.MonkeyPatch, variable: str, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert describe_machine()["threads"] == threads
