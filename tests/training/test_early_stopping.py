"""Early stopping: a phase ends when validation gains nothing, and an interrupted one ends at the same epoch."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_training import CLASSIFIER, LM, LM_STEPS, LM_VALID, StopAt, same, train

from pipeline import stopping
from pipeline.errors import Stopped
from pipeline.training.history import epochs_without_gain
from pipeline.training.state import read_state
from pipeline.training_settings import Phase

EPOCH = LM_STEPS + LM_VALID
STANDSTILL = Phase(name="standstill", epochs=5, lr=1e-30, patience=2)
AFTER = Phase(name="after", lr=1e-2)
STOPPING_LM = LM.model_copy(update={"phases": (STANDSTILL, AFTER)})
"""Its first phase ends after three of five epochs: weights do not move, so none is better than the first."""


@pytest.fixture(autouse=True)
def _no_request_left() -> Iterator[None]:
    yield
    stopping.forget()


def test_a_phase_ends_when_nothing_gets_better_and_the_next_one_goes_on(tmp_path: Path) -> None:
    result = train(tmp_path, STOPPING_LM)
    assert [(r["phase"], r["epoch"], r["stopped_early"]) for r in result.history] == [
        ("standstill", 1, False), ("standstill", 2, False), ("standstill", 3, True), ("after", 4, False)
    ]
    assert "finetune_lm standstill 3/5: the phase ends, 2 epochs brought nothing better" in result.log


def test_a_phase_that_gets_better_is_left_alone(tmp_path: Path) -> None:
    phase = Phase(name="better", epochs=3, lr=1e-2, patience=1)
    history = train(tmp_path, LM.model_copy(update={"phases": (phase,)})).history
    assert [r["stopped_early"] for r in history] == [False] * 3


def test_it_resumes_exactly(tmp_path: Path) -> None:
    unbroken = train(tmp_path / "unbroken", STOPPING_LM)
    for moment in (EPOCH, 2 * EPOCH + 3, 3 * EPOCH - 1, 3 * EPOCH, 3 * EPOCH + 4):
        with pytest.raises(Stopped):
            train(tmp_path / str(moment), STOPPING_LM, (StopAt(moment),))
        stopping.forget()
        assert same(train(tmp_path / str(moment), STOPPING_LM), unbroken), f"stopped at batch {moment}"


def test_a_stop_between_the_phases_does_not_go_back_into_the_ended_one(tmp_path: Path) -> None:
    settings = STOPPING_LM.model_copy(update={"phases": (STANDSTILL,)})
    first = train(tmp_path, settings)
    newest = max((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert read_state(newest)["position"]["epoch"] == STANDSTILL.epochs
    again = train(tmp_path, settings)
    assert same(again, first)
    assert "step 5/15" not in again.log


def test_the_mean_of_the_last_epochs_is_of_those_there_were(tmp_path: Path) -> None:
    settings = STOPPING_LM.model_copy(update={"phases": (STANDSTILL,), "average_epochs": 2})
    unbroken = train(tmp_path / "unbroken", settings)
    assert str(unbroken.trained.average) == "mean of epochs 2 to 3"
    with pytest.raises(Stopped):
        train(tmp_path / "x", settings, (StopAt(2 * EPOCH + 5),))
    stopping.forget()
    again = train(tmp_path / "x", settings)
    assert same(again, unbroken)
    assert again.trained.average == unbroken.trained.average


def test_a_classifier_ends_by_its_accuracy_and_resumes_exactly(tmp_path: Path) -> None:
    settings = CLASSIFIER.model_copy(update={"phases": (Phase(name="all", epochs=8, lr=3e-2, patience=1),)})
    unbroken = train(tmp_path / "unbroken", settings)
    quality = [(r["accuracy"], -r["valid_loss"]) for r in unbroken.history]
    assert 1 < len(quality) < 8
    assert quality[-1] <= max(quality[:-1])
    assert quality[:-1] == sorted(quality[:-1])
    for moment in (6, 7 * len(quality) - 2, 7 * len(quality)):
        with pytest.raises(Stopped):
            train(tmp_path / str(moment), settings, (StopAt(moment),))
        stopping.forget()
        assert same(train(tmp_path / str(moment), settings), unbroken), f"stopped at batch {moment}"


@pytest.mark.parametrize(("losses", "gainless"), [([1.0], 0), ([3, 2, 1], 0), ([1, 1, 1], 2), ([2, 1, 3, 2], 2)])
def test_epochs_since_the_best_are_counted(losses: list[float], gainless: int) -> None:
    records = [{"valid_loss": loss} for loss in losses]
    assert epochs_without_gain(records, lambda one, other: one["valid_loss"] < other["valid_loss"]) == gainless
