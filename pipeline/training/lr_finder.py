"""The learning-rate range test (Smith 2015, arXiv:1506.01186) as fastai's `lr_find` does it, on the task of a stage."""

from dataclasses import dataclass

import numpy as np
import torch
from fastai.callback.core import CancelFitException, CancelValidException
from fastai.callback.schedule import ParamScheduler, SchedExp, steep, valley

from pipeline.errors import DivergedError
from pipeline.training.device import Device
from pipeline.training.divergence import GradientGuard
from pipeline.training.phases import make_learner, open_layers, seed_phase
from pipeline.training.precision import MixedPrecision
from pipeline.training.task import Task
from pipeline.training_settings import Phase, TrainingSettings

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 100
"""fastai's defaults."""
FEWEST = 20
"""Steps with a finite loss below which the curve says nothing."""


@dataclass(frozen=True)
class Sweep:
    """Rates of the last layer group and the smoothed loss after a step with each; what fastai's rules suggest."""

    rates: list[float]
    losses: list[float]
    valley: float
    """A third to a half down the longest descent of the loss."""
    steep: float
    """Where the loss falls fastest."""


def sweep(
    task: Task, settings: TrainingSettings, phase: Phase, *, device: Device, seed: int, phase_number: int
) -> Sweep:
    """Train the layers of `phase` for 100 steps with a rate that grows from 1e-7 to 10, until the loss explodes.

    The other layer groups follow in the proportion of the phase. Spoils the weights in the model. Raises
    DivergedError if the loss was no number before there was a curve.
    """
    guard = GradientGuard(task.name, settings.clip, max_skipped=STEPS * settings.accumulate)
    learn = make_learner(task, settings, device, [MixedPrecision(device), guard])
    seed_phase(seed, phase_number)
    open_layers(learn, task.name, phase)
    learn.opt.set_hyper("lr", 1.0 if phase.lr_lowest is None else slice(phase.lr_lowest / phase.lr, 1.0))
    proportion = np.array([hypers["lr"] for hypers in learn.opt.hypers])
    n_batches = STEPS * settings.accumulate
    finder = _Finder(task, proportion, n_batches)
    with learn.no_logging(), device.kernels():
        learn.fit(n_batches // len(task.train) + 1, cbs=[finder])
    if len(finder.losses) < FEWEST * settings.accumulate:
        what = "rose fourfold" if finder.rose else "was no number"
        raise DivergedError(
            f"{task.name}: the loss {what} after {len(finder.losses)} steps at rates below "
            f"{finder.rates[-1] if finder.rates else LOWEST:.1e}.",
            f"Set {task.name}.clip, e.g. --set {task.name}.clip=0.25.",
        )
    used = slice(n_batches // 10, -5)  # as fastai: the beginning is noise, the end explodes
    rates, losses = torch.tensor(finder.rates[used]), torch.tensor(finder.losses[used])
    found = (float(rule(rates, losses, n_batches)[0]) for rule in (valley, steep))
    return Sweep(finder.rates, finder.losses, *found)


class _Finder(ParamScheduler):
    """fastai's LRFinder without its copy of the weights on disk."""

    def __init__(self, task: Task, proportion: np.ndarray, n_batches: int) -> None:
        super().__init__({"lr": SchedExp(LOWEST * proportion, HIGHEST * proportion)})
        self.task, self.n_batches = task, n_batches
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.rose = False

    def before_train(self) -> None:
        """Each pass has its own order."""
        self.task.train.epoch = self.epoch

    def before_batch(self) -> None:
        """Set the rates."""
        self._update_val(self.train_iter / self.n_batches)

    def after_batch(self) -> None:
        """Note the loss; end when it is no number, four times the lowest, or when all steps are done."""
        if not self.gradient_guard.loss_is_finite:
            raise CancelFitException
        self.rates.append(float(self.opt.hypers[-1]["lr"]))
        self.losses.append(float(self.smooth_loss))
        # Of the first tenth, which is not used either, one easy batch would make all others look bad.
        used = self.losses[self.n_batches // 10 :]
        self.rose = bool(used) and used[-1] > 4 * min(used)
        if self.rose or self.train_iter >= self.n_batches:
            raise CancelFitException

    def before_validate(self) -> None:
        """Only training counts."""
        raise CancelValidException
