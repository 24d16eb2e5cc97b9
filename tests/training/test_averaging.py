"""Weight averaging: the mean of what the last epochs left, the same however often the training was broken off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastai.learner import Callback
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tiny_training import CLASSIFIER, LM, LM_STEPS, LM_VALID, Result, StopAt, same, train
from torch import Tensor

from pipeline import stopping
from pipeline.errors import Stopped
from pipeline.training.averaging import write_mean
from pipeline.training_settings import FinetuneLMSettings, TrainingSettings

EPOCH = LM_STEPS + LM_VALID
AVERAGED_LM = LM.model_copy(update={"average_epochs": 2})
AVERAGED_CLASSIFIER = CLASSIFIER.model_copy(update={"average_epochs": 2})


@pytest.fixture(autouse=True)
def _no_request_left() -> Iterator[None]:
    yield
    stopping.forget()


class EpochEnds(Callback):
    """The weights at the end of each epoch."""

    order = 65  # before anything is kept

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def after_epoch(self) -> None:
        if not self.cancelled:
            self.weights.append({n: t.clone() for n, t in self.model.state_dict().items()})

    def before_train(self) -> None:
        self.cancelled = False

    def after_cancel_train(self) -> None:
        self.cancelled = True


@pytest.mark.parametrize("settings", [AVERAGED_LM, AVERAGED_CLASSIFIER])
def test_the_model_ends_as_the_mean_of_its_last_epochs(tmp_path: Path, settings: TrainingSettings) -> None:
    ends = EpochEnds()
    result = train(tmp_path, settings, (ends,))
    assert len(ends.weights) == 3
    saved = load_file(tmp_path / "average" / "encoder.safetensors")
    for name, last in ends.weights[-1].items():
        if "weight_raw" in name or name.endswith("_raw") or "bias" in name or "norm" in name or "encoder" in name:
            expected = (ends.weights[-2][name].double() + last.double()) / 2 if last.is_floating_point() else last
            assert torch.equal(result.weights[name], expected.to(last.dtype)), name
    assert torch.equal(saved["lstm.0.weight_hh"], result.weights[next(n for n in result.weights if "_raw" in n)])
    average = result.trained.average
    assert average is not None
    assert str(average) == "mean of epochs 2 to 3"
    assert f"{settings_name(settings)}: mean of epochs 2 to 3, valid loss {average.record['valid_loss']:.4f}" in (
        result.log
    )
    assert len(result.history) == 3  # its validation is no epoch


def settings_name(settings: TrainingSettings) -> str:
    return "finetune_lm" if isinstance(settings, FinetuneLMSettings) else "train_classifier"


def test_its_figures_are_those_of_a_validation_of_its_weights(tmp_path: Path) -> None:
    averaged = train(tmp_path / "a", AVERAGED_LM).trained.average
    assert averaged is not None
    same_weights = LM.model_copy(
        update={"phases": tuple(p.model_copy(update={"lr": 1e-30, "epochs": 1}) for p in LM.phases[:1]), "wd": 0.0}
    )

    class StartFrom(Callback):
        def before_fit(self) -> None:
            self.model.load_state_dict(weights)

    weights = train(tmp_path / "a", AVERAGED_LM).weights
    record = train(tmp_path / "b", same_weights, (StartFrom(),)).history[0]
    assert averaged.record["valid_loss"] == pytest.approx(record["valid_loss"], rel=1e-6)
    assert averaged.record["accuracy"] == record["accuracy"]


def test_no_average_is_made_unasked(tmp_path: Path) -> None:
    assert train(tmp_path, LM).trained.average is None
    assert not list((tmp_path / "checkpoints").glob("epoch-*"))


def assert_same(one: Result, other: Result) -> None:
    assert same(one, other)
    assert one.trained.average == other.trained.average is not None


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_language_model_resumes_exactly(tmp_path: Path, precision: str) -> None:
    unbroken = train(tmp_path / "unbroken", AVERAGED_LM, precision=precision)
    for moment in (EPOCH + 5, 2 * EPOCH, 3 * EPOCH, 3 * EPOCH + 1)[0 if precision == "fp32" else 2 :]:
        with pytest.raises(Stopped) as stopped:
            train(tmp_path / str(moment), AVERAGED_LM, (StopAt(moment),), precision)
        stopping.forget()
        if moment > 3 * EPOCH:
            assert "finetune_lm, validating the mean of its last epochs, was stopped" in str(stopped.value)
        assert_same(train(tmp_path / str(moment), AVERAGED_LM, precision=precision), unbroken)


def test_a_classifier_resumes_exactly(tmp_path: Path) -> None:
    unbroken = train(tmp_path / "unbroken", AVERAGED_CLASSIFIER)
    for moment in (2, 8, 12, 14, 15, 19, 21, 22):
        with pytest.raises(Stopped):
            train(tmp_path / str(moment), AVERAGED_CLASSIFIER, (StopAt(moment),))
        stopping.forget()
        assert_same(train(tmp_path / str(moment), AVERAGED_CLASSIFIER), unbroken)


def test_a_damaged_epoch_is_trained_again(tmp_path: Path) -> None:
    unbroken = train(tmp_path / "unbroken", AVERAGED_LM)
    with pytest.raises(Stopped):
        train(tmp_path / "x", AVERAGED_LM, (StopAt(2 * EPOCH + 2),))
    stopping.forget()
    kept = tmp_path / "x" / "checkpoints" / "epoch-00000002"
    (kept / "encoder.safetensors").write_bytes(b"no tensors")
    again = train(tmp_path / "x", AVERAGED_LM)
    assert "of epoch 2, whose weights are to be averaged, encoder.safetensors is damaged" in again.log
    assert_same(again, unbroken)


def test_a_mean_is_taken_in_double_precision_and_counts_are_the_last(tmp_path: Path) -> None:
    values = [0.1, 0.2, 0.7]
    for i, value in enumerate(values):
        folder = tmp_path / str(i)
        folder.mkdir()
        save_file({"w": torch.full((3,), value), "n": torch.tensor(i)}, folder / "head.safetensors")
    (tmp_path / "mean").mkdir()
    write_mean([tmp_path / str(i) for i in range(3)], tmp_path / "mean")
    mean = load_file(tmp_path / "mean" / "head.safetensors")
    expected = sum(torch.tensor(value).double() for value in values) / 3
    assert torch.equal(mean["w"], torch.full((3,), float(expected)))
    assert mean["n"] == 2


def test_more_epochs_than_there_are_is_refused() -> None:
    with pytest.raises(ValidationError, match="average_epochs is 7, but the phases have 6 epochs together"):
        FinetuneLMSettings(average_epochs=7)
