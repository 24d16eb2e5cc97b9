"""Training in phases on fastai's Learner.

A phase starts from nothing but the weights of the phase before it: optimizer, schedule, scaler and random state are
its own, derived from the seed.
"""

import contextlib
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from fastai.callback.core import TrainEvalCallback
from fastai.data.core import DataLoaders
from fastai.learner import Callback, CastToTensor
from torch import nn

from pipeline import stopping
from pipeline.errors import DivergedError, UsageError
from pipeline.model.lstm import Lstm
from pipeline.progress import Reporter, format_duration
from pipeline.stage import StageContext
from pipeline.training.accumulation import Accumulation
from pipeline.training.averaging import Average, validated
from pipeline.training.curve import Point
from pipeline.training.device import Device
from pipeline.training.divergence import GradientGuard
from pipeline.training.group import ONE, Group
from pipeline.training.history import Record, epochs_without_gain
from pipeline.training.learner import EpochRecorder, ResumableLearner
from pipeline.training.optimizer import fused_adam
from pipeline.training.precision import MixedPrecision
from pipeline.training.resume import BestEpoch, Checkpointer
from pipeline.training.schedules import fit_phase
from pipeline.training.sharing import SharedLoss, shared, sharing
from pipeline.training.task import Task
from pipeline.training_settings import Phase, TrainingSettings

AVERAGE = "average"
"""Folder for the mean of the last epochs while the stage is not sealed."""


@dataclass(frozen=True)
class Trained:
    """What came out of the training of all phases, beside the weights in the model."""

    history: list[Record]
    curve: list[Point]
    """Loss and learning rate inside the epochs."""
    precision: str
    """What really ran: fp16, bf16 or fp32."""
    skipped_steps: int
    """Steps that were skipped for NaN or infinity."""
    best: BestEpoch
    average: Average | None
    """The mean of the last epochs, where it was asked for; the model then holds its weights."""


class Prepared(Protocol):
    """What a training stage has made ready."""

    @property
    def task(self) -> Task:
        """What is trained."""

    @property
    def device(self) -> Device:
        """Where, and in which arithmetic."""

    @property
    def group(self) -> Group:
        """The processes that share it."""


def train_stage(context: StageContext, prepared: Prepared) -> Trained:
    """`train_phases` as the recipe of a stage says: what every rank does of it."""
    return train_phases(
        prepared.task, context.settings, context.settings.phases, device=prepared.device, seed=context.recipe.run.seed,
        resume=context.resume, fingerprint=context.fingerprint, reporter=context.reporter, group=prepared.group,
    )


def train_phases(
    task: Task, settings: TrainingSettings, phases: Sequence[Phase], *, device: Device, seed: int, resume: Path,
    fingerprint: str, reporter: Reporter, group: Group = ONE,
) -> Trained:
    """Train all `phases`, going on where the newest valid checkpoint in `resume` ends; every rank of `group` calls it.

    Raises Stopped, with a checkpoint, if a stop was asked for; DivergedError when the loss is no number any more;
    UsageError if a phase asks for more layer groups than the model has, or a batch has too few rows for `group`;
    LostRankError if another rank ended.
    """
    group.meet()
    task = shared(task, group)
    precision, guard = MixedPrecision(device), GradientGuard(task.name, settings.clip, settings.max_skipped)
    checkpointer = Checkpointer(
        task, settings, device, fewest_epochs=sum(map(_fewest_epochs, phases)), resume=resume,
        fingerprint=fingerprint, reporter=reporter, group=group,
    )
    learn = make_learner(
        task, settings, device, [precision, guard, checkpointer, *sharing(task, settings, group, seed)]
    )
    _tell_of_own_layers(learn.model, task.name, device, reporter)
    start = checkpointer.find()
    checkpointer.restore_counters(precision, guard)
    for i, phase in enumerate(phases):
        if i < start.phase or (i == start.phase and start.epoch == phase.epochs):
            continue
        stopping.obey(group.say(stopping.asked()), f"{task.name} before phase {phase.name}")
        seed_phase(seed, i)
        open_layers(learn, task.name, phase)
        if i == start.phase:
            learn.first_epoch, learn.first_train_batch = start.epoch, start.train_batches
            learn.first_valid_batch = start.valid_batches
        checkpointer.phase = i
        log = PhaseLog(task, phase, checkpointer, settings=settings, phases=phases, reporter=reporter)
        with log.bars, learn.no_logging(), device.kernels():
            fit_phase(learn, phase, settings.moms, [log])
    average = None
    if epochs := checkpointer.last.average(len(checkpointer.history), resume / AVERAGE):
        with device.kernels():
            callbacks = [MixedPrecision(device), *sharing(task, settings, group, seed)]
            average = Average(epochs, validated(make_learner(task, settings, device, callbacks), task))
        reporter.line(f"{task.name}: {average}, {_shown(average.record)}")
    return Trained(
        checkpointer.history, checkpointer.curve.points, precision.effective, guard.skipped_steps, checkpointer.best,
        average,
    )


def open_layers(learn: ResumableLearner, name: str, phase: Phase) -> None:
    """A new optimizer for the layers that `phase` trains; UsageError if it asks for more groups than there are."""
    groups = len(learn.splitter(learn.model))
    if phase.train_last is not None and phase.train_last > groups:
        raise UsageError(
            f"Phase {phase.name} of {name} trains the last {phase.train_last} layer groups; there are {groups}.",
            f"Correct train_last in {name}.phases.",
        )
    learn.create_opt()
    if phase.train_last is None:
        learn.unfreeze()
    else:
        learn.freeze_to(-phase.train_last)


def _fewest_epochs(phase: Phase) -> int:
    return phase.epochs if phase.patience is None else min(phase.epochs, phase.patience + 1)


def _tell_of_own_layers(model: nn.Module, name: str, device: Device, reporter: Reporter) -> None:
    with device.kernels(), device.autocast():
        layers = [layer for layer in model.modules() if isinstance(layer, Lstm)]
        own = {layer.hidden_size for layer in layers if layer.is_wrong_in_torch()}
    if own:
        units = " and ".join(f"{units:,}" for units in sorted(own))
        reporter.line(
            f"{name}: LSTM layers of {units} units learn by this pipeline's own kernel; torch's gradients of them are "
            "wrong in bf16 on this CPU"
        )


def make_learner(
    task: Task, settings: TrainingSettings, device: Device, callbacks: Sequence[Callback]
) -> ResumableLearner:
    """A learner with fastai's default callbacks but for its progress bar, which would fill batch logs."""
    regularized = any(isinstance(callback, SharedLoss) for callback in callbacks)
    alpha, beta = (0.0, 0.0) if regularized else (settings.alpha, settings.beta)
    learn = ResumableLearner(
        DataLoaders(task.train, task.valid, device=device.device), task.model.to(device.device), loss_func=task.loss,
        opt_func=fused_adam, splitter=task.splitter, alpha=alpha, beta=beta, moms=settings.moms,
        wd=settings.wd, metrics=list(task.metrics), default_cbs=False,
        cbs=[
            TrainEvalCallback(), EpochRecorder(), CastToTensor(), Accumulation(task, settings.accumulate), *callbacks,
            *task.callbacks,
        ],
    )
    learn.logger = None
    return learn


def seed_weights(seed: int) -> None:
    """Seed the initial weights of a model that is about to be built."""
    seed_phase(seed, 2**32 - 1)


def seed_phase(seed: int, phase: int) -> None:
    """Seed every generator that a phase draws from; each phase has its own stream of every seed."""
    mixed = int(np.random.SeedSequence([seed, phase]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


class PhaseLog(Callback):
    """Data order of each epoch, log lines or bar, history records, and the watch over the validation loss."""

    order = EpochRecorder.order + 20
    name = "phase_log"

    def __init__(
        self, task: Task, phase: Phase, checkpointer: Checkpointer, *, settings: TrainingSettings,
        phases: Sequence[Phase], reporter: Reporter,
    ) -> None:
        self.task, self.phase, self.checkpointer, self.reporter = task, phase, checkpointer, reporter
        self.log_every, self.group = settings.log_every, checkpointer.group
        self.epochs_before = sum(p.epochs for p in phases[: checkpointer.phase])
        self.total_epochs = sum(p.epochs for p in phases)
        self.bars = contextlib.ExitStack()
        """Closes the bar of an epoch that was cut off."""

    def before_train(self) -> None:
        """Set the data order: a function of seed and of the epoch's number in the whole stage."""
        self.task.train.epoch = len(self.checkpointer.history)
        self.started, self.first = time.monotonic(), self.learn.first_train_batch
        self.seconds_before = self.checkpointer.train_s
        self.seconds: float | None = None
        self.title, self.figures = f"{self.task.name} {self.phase.name} {self.epoch + 1}/{self.phase.epochs}", ""
        self.progress = self.bars.enter_context(self.reporter.task(self.title, len(self.task.train), "steps"))
        self.progress.advance(self.first)

    def train_seconds(self) -> float:
        """Time spent on the training batches of this epoch, by this process and those before it."""
        here = time.monotonic() - self.started if self.seconds is None else self.seconds
        return self.seconds_before + here

    def after_batch(self) -> None:
        """Add to the curve; every `log_every` steps loss, rate, speed and time left: as a line, or beside the bar."""
        if not self.training:
            return
        step, steps = self.iter + 1, len(self.task.train)
        self.checkpointer.curve.add(
            self.checkpointer.phase, self.phase.name, step=self.epoch * steps + step, steps=self.phase.epochs * steps,
            epoch=len(self.checkpointer.history) + step / steps, loss=self.gradient_guard.loss_value,
            lr=float(self.opt.hypers[-1]["lr"]),
        )
        due = step % self.log_every == 0 or step == steps
        if due:
            self.figures = self._figures(step, steps)
        if self.reporter.interactive:
            self.progress.advance(1, self.figures)
        elif due:
            self.reporter.line(f"{self.title}: step {step}/{steps}, {self.figures}")

    def _figures(self, step: int, steps: int) -> str:
        """Reads the loss from the device, which then has to wait: not for every step."""
        per_step = (time.monotonic() - self.started) / (step - self.first)
        epochs_left = self.total_epochs - self.epochs_before - self.epoch - step / steps
        return (
            f"loss {float(self.recorder.smooth_loss.value):.4f}, lr {self.opt.hypers[-1]['lr']:.2e}, "
            f"{self.task.units / steps / per_step:,.0f} {self.task.unit}/s, "
            f"{format_duration(epochs_left * steps * per_step)} left"
        )

    def after_train(self) -> None:
        """Close the bar."""
        self.seconds = time.monotonic() - self.started
        self.bars.close()

    def after_epoch(self) -> None:
        """Add the epoch's record to the history."""
        names, values = self.recorder.metric_names[1:], self.recorder.log[1:]
        figures = {name: float(value) for name, value in zip(names, values, strict=False) if name != "time"}
        seconds = self.train_seconds()
        record: Record = {
            "phase": self.phase.name,
            "epoch": len(self.checkpointer.history) + 1,
            "train_loss": figures.pop("train_loss"),
            **self.task.summarize(figures),
            f"{self.task.unit}_per_s": round(self.task.units / seconds, 1),
            "train_s": round(seconds, 3),
            "skipped_steps": self.gradient_guard.skipped_steps,
        }
        record = self.group.say(record)  # of which GPUs may have different last bits, and clocks say different things
        if not math.isfinite(record["valid_loss"]):
            raise DivergedError(
                f"{self.task.name}: the validation loss became {record['valid_loss']} in phase {self.phase.name}, "
                f"epoch {self.epoch + 1}; the last good checkpoint is kept.",
                f"Lower the phase's lr, or set {self.task.name}.clip, e.g. --set {self.task.name}.clip=0.25, "
                "with --force.",
            )
        self.checkpointer.last.offer(record["epoch"])
        if self.task.keep_best:
            self.checkpointer.best.offer(record)
        self.checkpointer.history.append(record)
        record["stopped_early"] = self.learn.ends_early = self._patience_is_over()
        self.reporter.line(f"{self.title}: epoch done in {format_duration(seconds)}, {_shown(record)}")
        if self.ends_early:
            self.reporter.line(f"{self.title}: the phase ends, {self.phase.patience} epochs brought nothing better")

    def _patience_is_over(self) -> bool:
        """True if the phase has to end before its last epoch."""
        patience, done = self.phase.patience, self.epoch + 1
        if patience is None or done == self.phase.epochs:
            return False
        return epochs_without_gain(self.checkpointer.history[-done:], self.task.is_better) >= patience


def _shown(record: Record) -> str:
    """The figures of a record in words."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4f}" for name, value in record.items()
        if isinstance(value, float) and not name.endswith("_s")
    )
