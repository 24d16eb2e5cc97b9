"""The learning-rate finder against fastai's own `lr_find`, on the same task from the same start."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.core import TrainEvalCallback
from fastai.callback.schedule import steep, valley
from fastai.data.core import DataLoaders
from fastai.learner import Callback, CastToTensor, Recorder
from fastai.text.learner import TextLearner
from test_adversarial import texts
from test_divergence import Poison
from tiny_training import CLASSIFIER, LM, classifier_task, language_model_task

from pipeline.errors import DivergedError
from pipeline.training.adversarial import AdversarialLoss, VirtualAdversarialLoss
from pipeline.training.device import Device
from pipeline.training.lr_finder import Sweep, sweep
from pipeline.training.phases import seed_phase
from pipeline.training.task import Task
from pipeline.training_settings import FinetuneLMSettings, Phase, TrainClassifierSettings

FP32 = Device(torch.device("cpu"), "fp32", "fp32")
FLAT = Phase(name="all", lr=1e-2)


def find(settings: FinetuneLMSettings | TrainClassifierSettings, phase: Phase = FLAT, precision: str = "fp32") -> Sweep:
    device = Device(torch.device("cpu"), precision, precision)
    return sweep(task_of(settings), settings, phase, device=device, seed=3, phase_number=0)


def task_of(settings: FinetuneLMSettings | TrainClassifierSettings) -> Task:
    if isinstance(settings, TrainClassifierSettings):
        return classifier_task(settings, ())
    return language_model_task(settings, ())


@pytest.mark.parametrize("settings", [LM, CLASSIFIER])
def test_it_finds_what_fastai_finds(settings: FinetuneLMSettings | TrainClassifierSettings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"clip": None})
    ours = find(settings)

    task = task_of(settings)
    learn = TextLearner(
        DataLoaders(task.train, task.valid, device=torch.device("cpu")), task.model, loss_func=task.loss,
        splitter=task.splitter, alpha=settings.alpha, beta=settings.beta, moms=settings.moms, wd=settings.wd,
        default_cbs=False, cbs=[TrainEvalCallback(), Recorder(), CastToTensor()], path=tmp_path,
    )
    learn.logger = None
    seed_phase(3, 0)
    theirs = learn.lr_find(show_plot=False, suggest_funcs=(valley, steep))
    same_pass = len(task.train)  # fastai reads its data in one order; ours is another in each pass
    np.testing.assert_allclose(ours.rates[:same_pass], learn.recorder.lrs[:same_pass], rtol=1e-6)
    losses = [float(x) for x in learn.recorder.losses[:same_pass]]
    np.testing.assert_allclose(ours.losses[:same_pass], losses, rtol=1e-5)
    for suggested, fastais in ((ours.valley, theirs.valley), (ours.steep, theirs.steep)):
        assert abs(math.log10(suggested / fastais)) < 1
    assert 1e-5 < ours.valley < 1


def test_it_is_repeatable_and_runs_in_the_precision_asked_for() -> None:
    assert find(LM, precision="bf16") == find(LM, precision="bf16")
    assert find(LM, precision="bf16") != find(LM)


def test_layers_follow_the_phase() -> None:
    phase = Phase(name="last", lr=1e-2, lr_lowest=1e-3, train_last=2)
    task = task_of(LM)
    before = {n: t.clone() for n, t in task.model.state_dict().items()}
    found = sweep(task, LM, phase, device=FP32, seed=3, phase_number=0)
    moved = {n for n, t in task.model.state_dict().items() if not torch.equal(t, before[n])}
    assert not any(n.startswith("0.rnns.0") for n in moved)
    assert any(n.startswith("0.rnns.1") for n in moved)
    assert found.rates[0] == pytest.approx(1e-7)


def test_accumulated_batches_are_steps_of_one_rate_range() -> None:
    found = find(LM.model_copy(update={"bs": 2, "accumulate": 2}))
    assert len(found.rates) > 100
    assert max(found.rates) <= 10


def test_adversarial_training_can_be_swept() -> None:
    for callback in (AdversarialLoss(0.05), VirtualAdversarialLoss(0.05, texts())):
        found = sweep(
            classifier_task(CLASSIFIER, (callback,)), CLASSIFIER, FLAT, device=FP32, seed=3, phase_number=0
        )
        assert found.losses != find(CLASSIFIER).losses


class OtherLosses(Callback):
    """Other losses than those that there are."""

    order = -1

    def __init__(self, *others: float) -> None:
        self.others = list(others)

    def after_loss(self) -> None:
        if self.training and self.others:
            self.learn.loss_grad = self.loss_grad * (self.others.pop(0) / self.loss_grad.detach())
            self.learn.loss = self.loss_grad.clone()


def test_an_easy_batch_at_the_start_does_not_end_the_sweep() -> None:
    assert len(sweep(
        classifier_task(CLASSIFIER, (OtherLosses(0.01, 0.1),)), CLASSIFIER, FLAT, device=FP32, seed=3, phase_number=0
    ).losses) > 20
    task = classifier_task(CLASSIFIER, (OtherLosses(*[0.1] * 12, 9.0),))
    with pytest.raises(DivergedError, match="train_classifier: the loss rose fourfold after 13 steps"):
        sweep(task, CLASSIFIER, FLAT, device=FP32, seed=3, phase_number=0)


def test_a_loss_that_is_no_number_at_once_is_an_error() -> None:
    task = language_model_task(LM, (Poison(5, math.inf),))
    with pytest.raises(DivergedError, match=r"finetune_lm: the loss was no number after 4 steps at rates below .*clip"):
        sweep(task, LM, FLAT, device=FP32, seed=3, phase_number=0)
