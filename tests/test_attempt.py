"""Unfinished artifacts: taken up again only by the same, and told apart from what cannot be read."""

import os
from pathlib import Path

import pytest

from pipeline.attempt import Attempt, open_partial, partial_path, unfinished

FINGERPRINT = "f" * 64


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "run" / "corpus"


def test_an_attempt_is_taken_up_only_with_its_own_fingerprint(target: Path) -> None:
    partial, resuming = open_partial(target, FINGERPRINT)
    assert not resuming
    kept, half = partial / "resume/kept", partial / "half"
    kept.write_text("for the next attempt")
    half.write_text("half a file")
    assert open_partial(target, FINGERPRINT) == (partial, True)
    assert (kept.exists(), half.exists()) == (True, False)
    assert open_partial(target, "0" * 64) == (partial, False)
    assert not kept.exists()


def test_time_adds_up_over_starts_until_what_each_kept_last(target: Path) -> None:
    def start_and_keep(at: float, seconds: float) -> None:
        resume = open_partial(target, FINGERPRINT)[0] / "resume"
        (resume / "checkpoints").mkdir(exist_ok=True)
        (resume / "checkpoints/kept").write_text("a checkpoint")
        for path in (resume / "attempt.json", resume / "checkpoints"):
            os.utime(path, (at, at))
        os.utime(resume / "checkpoints/kept", (at + seconds, at + seconds))

    start_and_keep(1e9, 60)
    start_and_keep(1.1e9, 5)
    open_partial(target, FINGERPRINT)
    found = unfinished(target)
    assert found
    assert found.spent_s == pytest.approx(65)


def test_an_attempt_says_what_it_was_asked_for(target: Path) -> None:
    assert unfinished(target) is None
    settings = {"finetune_lm": {"bs": 4}}
    partial, _ = open_partial(target, FINGERPRINT, code_version=2, settings=settings, inputs={"ids": "0" * 64})
    for step in (500, 1000):
        (partial / f"resume/checkpoints/checkpoint-{step:08d}").mkdir(parents=True)
    assert unfinished(target) == Attempt(
        fingerprint=FINGERPRINT, code_version=2, settings=settings, inputs={"ids": "0" * 64}, checkpoints=2
    )


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"fingerprint": "f", "more": 1}'])
def test_an_attempt_that_cannot_be_read_is_none(target: Path, content: bytes) -> None:
    partial, _ = open_partial(target, FINGERPRINT)
    (partial / "resume/attempt.json").write_bytes(content)
    (partial / "half").write_text("half")
    assert unfinished(target) is None
    assert open_partial(target, FINGERPRINT) == (partial_path(target), False)
    assert not (partial / "half").exists()
