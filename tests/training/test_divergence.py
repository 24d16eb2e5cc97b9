"""Losses and gradients that are no numbers: once they are skipped, for ever they end the stage."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fastai.learner import Callback
from tiny_training import CLASSIFIER, LM, StopAt, same, train

from pipeline import stopping
from pipeline.errors import DivergedError, ExitCode, Stopped
from pipeline.training.precision import MixedPrecision
from pipeline.training_settings import TrainingSettings


class Poison(Callback):
    """Spoil the model's output or one gradient in the training steps `first` to `last`, counted from 1."""

    order = MixedPrecision.order - 1  # gradients are spoilt before they are looked at

    def __init__(self, first: int, last: float, value: float = math.nan, what: str = "output") -> None:
        self.first, self.last, self.value, self.what = first, last, value, what
        self.seen = 0

    def after_pred(self) -> None:
        if self.training:
            self.seen += 1
            if self.what == "output" and self.first <= self.seen <= self.last:
                self.learn.pred = self.pred * self.value

    def before_step(self) -> None:
        if self.what == "gradient" and self.first <= self.seen <= self.last:
            parameter = next(p for p in self.model.parameters() if p.grad is not None)
            parameter.grad.view(-1)[0] = self.value


@pytest.mark.parametrize("what", ["output", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [LM, CLASSIFIER])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_once_is_skipped_and_counted(
    tmp_path: Path, settings: TrainingSettings, what: str, value: float, precision: str
) -> None:
    clean = train(tmp_path / "clean", settings, precision=precision)
    result = train(tmp_path / "poisoned", settings, (Poison(15, 15, value, what),), precision)
    more = result.trained.skipped_steps - clean.trained.skipped_steps
    assert more == 1 or (more == 0 and precision == "fp16")  # a scaler that is still high may skip that very step
    assert result.trained.skipped_steps > 0
    assert result.history[-1]["skipped_steps"] == result.trained.skipped_steps
    assert all(tensor.isfinite().all() for tensor in result.weights.values())
    assert all(math.isfinite(r["train_loss"]) and math.isfinite(r["valid_loss"]) for r in result.history)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_forward_pass_that_overflows_leaves_no_trace_in_batch_norm(tmp_path: Path, accumulate: int) -> None:
    class Overflow(Callback):
        """Infinite features in front of the head, in one batch."""

        def before_batch(self) -> None:
            hook = lambda _, inputs: (inputs[0] * math.inf,)  # noqa: E731
            self.handle = self.model[1].layers.register_forward_pre_hook(hook) if self.train_iter == 2 else None

        def after_pred(self) -> None:
            if self.handle is not None:
                self.handle.remove()

    settings = CLASSIFIER.model_copy(update={"accumulate": accumulate})
    result = train(tmp_path, settings, (Overflow(),))
    assert result.trained.skipped_steps == len(settings.phases)
    assert all(tensor.isfinite().all() for tensor in result.weights.values())


def test_a_skipped_step_moves_nothing(tmp_path: Path) -> None:
    weights: list[torch.Tensor] = []

    class Watch(Callback):
        def after_batch(self) -> None:
            if self.training:
                weights.append(self.model[0].encoder.weight.detach().clone())

    train(tmp_path, callbacks=(Poison(3, 3, what="gradient"), Watch()))
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[2], weights[3])


@pytest.mark.parametrize("settings", [LM, CLASSIFIER])
def test_for_ever_ends_the_stage_and_keeps_the_last_good_checkpoint(tmp_path: Path, settings: TrainingSettings) -> None:
    settings = settings.model_copy(update={"checkpoint_steps": 1, "max_skipped": 4})
    resume = tmp_path / "resume"
    with pytest.raises(DivergedError, match=r"5 steps in a row had no finite loss .*checkpoint is kept\..*clip=0\.25"
                       ) as error:
        train(resume, settings, (Poison(4, math.inf),))
    assert error.value.exit_code is ExitCode.DIVERGED
    again = train(resume, settings)
    assert "going on after step 3 " in again.log
    assert again.trained.skipped_steps == 0
    assert same(again, train(tmp_path / "clean", settings))


def test_skips_that_are_not_in_a_row_are_let_pass(tmp_path: Path) -> None:
    settings = LM.model_copy(update={"max_skipped": 2})
    result = train(tmp_path, settings, (Poison(2, 3), Poison(5, 6), Poison(9, 9)))
    assert result.trained.skipped_steps == 5


def test_a_validation_loss_that_is_no_number_ends_the_stage(tmp_path: Path) -> None:
    class Spoil(Callback):
        order = MixedPrecision.order

        def after_pred(self) -> None:
            if not self.training:
                self.learn.pred = self.pred * math.nan

    with pytest.raises(DivergedError, match=r"validation loss became nan in phase head, epoch 1;"):
        train(tmp_path, CLASSIFIER, (Spoil(),))
    kept: Any = list((tmp_path / "checkpoints").glob("best-*"))
    assert kept == []  # what is kept as the best is never one that gave no number


def test_a_stop_in_a_row_of_skipped_steps_keeps_its_place(tmp_path: Path) -> None:
    settings = LM.model_copy(update={"max_skipped": 4})
    unbroken = train(tmp_path / "unbroken", settings, (Poison(4, 7),))
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", settings, (Poison(4, 7), StopAt(5)))
    stopping.forget()
    again = train(tmp_path / "stopped", settings, (Poison(1, 2),))
    assert "going on after step 5 " in again.log
    assert same(again, unbroken)
    assert again.trained.skipped_steps == 4
