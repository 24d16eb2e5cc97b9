"""Training in phases on fastai's Learner; every finished phase is a checkpoint.

A phase starts from nothing but the weights of the phase before it: optimizer, schedule, scaler and random state are
its own, derived from the seed. So a run that restarts at a phase ends with the same weights as an unbroken one.
"""

import contextlib
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastai.callback.schedule  # noqa: F401  # gives Learner its fit_one_cycle
import numpy as np
import torch
from fastai.callback.core import TrainEvalCallback
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Callback, CastToTensor, Metric, Recorder
from fastai.text.learner import TextLearner
from torch import nn

from pipeline.errors import DivergedError, UsageError
from pipeline.progress import Reporter, format_duration
from pipeline.settings import Phase, TrainingSettings
from pipeline.training.device import Device
from pipeline.training.history import Record, read_history, write_history
from pipeline.training.loaders import ClassifierLoader, LanguageModelLoader
from pipeline.training.precision import MixedPrecision

Loader = LanguageModelLoader | ClassifierLoader


@dataclass(frozen=True)
class Task:
    """What one training stage trains, and how its weights go to and from a folder."""

    name: str
    model: nn.Module
    splitter: Callable[[nn.Module], Any]
    loss: Any
    train: Loader
    valid: Loader
    metrics: Sequence[Metric]
    unit: str
    """What is counted for the speed: tokens or documents."""
    units: int
    """Units of one epoch."""
    summarize: Callable[[dict[str, float]], Record]
    """Turns the metric values of an epoch into the figures of the history."""
    save: Callable[[Path], None]
    load: Callable[[Path], None]
    after_epoch: Callable[[Record], None] = lambda record: None
    callbacks: Sequence[Callback] = ()


def train_phases(
    task: Task, settings: TrainingSettings, phases: Sequence[Phase], *, device: Device, seed: int, resume: Path,
    reporter: Reporter,
) -> tuple[list[Record], MixedPrecision]:
    """Train all `phases`, going on after the last one that `resume` holds; the history and what precision really ran.

    Raises DivergedError when the loss is no number any more, UsageError if a phase asks for more layer groups than
    the model has.
    """
    precision = MixedPrecision(device)
    learn = _learner(task, settings, device, precision)
    history: list[Record] = []
    for i, phase in enumerate(phases):
        checkpoint = resume / f"phase-{i}-{phase.name}"
        if (checkpoint / "history.jsonl").exists():
            history = read_history(checkpoint / "history.jsonl")
            task.load(checkpoint)
            precision.observed.add(device.dtype)  # checked before the checkpoint was written
            precision.skipped_steps = history[-1]["skipped_steps"]
            reporter.line(f"{task.name}: phase {phase.name} is done, taken from its checkpoint")
            continue
        groups = len(learn.splitter(learn.model))
        if phase.train_last is not None and phase.train_last > groups:
            raise UsageError(
                f"Phase {phase.name} of {task.name} trains the last {phase.train_last} layer groups; "
                f"there are {groups}.",
                f"Correct train_last in {task.name}.phases.",
            )
        seed_phase(seed, i)
        learn.create_opt()
        if phase.train_last is None:
            learn.unfreeze()
        else:
            learn.freeze_to(-phase.train_last)
        log = _PhaseLog(
            task, phase, log_every=settings.log_every, total_epochs=sum(p.epochs for p in phases), history=history,
            reporter=reporter,
        )
        lr = phase.lr if phase.lr_lowest is None else slice(phase.lr_lowest, phase.lr)
        with log.bars, learn.no_logging(), device.kernels():
            learn.fit_one_cycle(
                phase.epochs, lr, div=phase.div, div_final=phase.div_final, pct_start=phase.pct_start, cbs=[log]
            )
        if precision.effective != device.precision:
            raise RuntimeError(f"{device.precision} was asked for, the model put out {precision.observed}")
        _save_checkpoint(checkpoint, task, history)
    return history, precision


def _learner(task: Task, settings: TrainingSettings, device: Device, precision: MixedPrecision) -> TextLearner:
    """A TextLearner with fastai's default callbacks but for its progress bar, which would fill batch logs."""
    callbacks: list[Callback] = [TrainEvalCallback(), EpochRecorder(), CastToTensor(), precision, *task.callbacks]
    if settings.clip is not None:
        callbacks.append(GradientClip(settings.clip))
    learn = TextLearner(
        DataLoaders(task.train, task.valid, device=device.device), task.model.to(device.device), loss_func=task.loss,
        splitter=task.splitter, alpha=settings.alpha, beta=settings.beta, moms=settings.moms, wd=settings.wd,
        metrics=list(task.metrics), default_cbs=False, cbs=callbacks,
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


def _save_checkpoint(folder: Path, task: Task, history: Sequence[Record]) -> None:
    """Write beside the final name, then rename: a checkpoint is complete or absent."""
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    task.save(temporary)
    write_history(history, temporary)
    temporary.rename(folder)


class EpochRecorder(Recorder):
    """fastai's Recorder without the loss tensor of every step.

    Small tensors that live long, between large ones that do not, cut the C library's heap to pieces: with
    `keep_freed_memory` a run grew by 0.4 MB a step (measured), for as long as it lasted.
    """

    name = "recorder"

    def after_batch(self) -> None:
        """Record, then forget the step."""
        super().after_batch()
        self.losses.clear()


class _PhaseLog(Callback):
    """Data order of each epoch, log lines or bar, history records, and the watch for divergence."""

    order = Recorder.order + 20

    def __init__(
        self, task: Task, phase: Phase, *, log_every: int, total_epochs: int, history: list[Record], reporter: Reporter
    ) -> None:
        self.task, self.phase, self.log_every, self.history, self.reporter = task, phase, log_every, history, reporter
        self.epochs_before, self.total_epochs = len(history), total_epochs
        self.bars = contextlib.ExitStack()
        """Closes the bar of an epoch that was cut off."""

    def before_train(self) -> None:
        """Set the data order: a function of seed and of the epoch's number in the whole stage."""
        self.task.train.epoch = self.epochs_before + self.epoch
        self.started = time.monotonic()
        title = f"{self.task.name} {self.phase.name} {self.epoch + 1}/{self.phase.epochs}"
        self.title, self.figures = title, ""
        self.progress = self.bars.enter_context(self.reporter.task(title, len(self.task.train), "steps"))

    def after_batch(self) -> None:
        """Every `log_every` steps loss, learning rate, speed and time left: as a line, or beside the bar."""
        if not self.training:
            return
        step, steps = self.iter + 1, len(self.task.train)
        due = step % self.log_every == 0 or step == steps
        if due:
            self.figures = self._figures(step, steps)
        if self.reporter.interactive:
            self.progress.advance(1, self.figures)
        elif due:
            self.reporter.line(f"{self.title}: step {step}/{steps}, {self.figures}")

    def _figures(self, step: int, steps: int) -> str:
        """Reads the loss from the device, which then has to wait: not for every step."""
        self._check_finite(float(self.loss.detach()))
        elapsed = time.monotonic() - self.started
        epochs_left = self.total_epochs - self.epochs_before - self.epoch - step / steps
        return (
            f"loss {float(self.smooth_loss):.4f}, lr {self.opt.hypers[-1]['lr']:.2e}, "
            f"{self.task.units * step / steps / elapsed:,.0f} {self.task.unit}/s, "
            f"{format_duration(epochs_left * steps * elapsed / step)} left"
        )

    def after_train(self) -> None:
        """Close the bar."""
        self.train_s = time.monotonic() - self.started
        self.bars.close()

    def after_epoch(self) -> None:
        """Add the epoch's record to the history."""
        names, values = self.recorder.metric_names[1:], self.recorder.log[1:]
        figures = {name: float(value) for name, value in zip(names, values, strict=False) if name != "time"}
        record: Record = {
            "phase": self.phase.name,
            "epoch": self.epochs_before + self.epoch + 1,
            "train_loss": figures.pop("train_loss"),
            **self.task.summarize(figures),
            f"{self.task.unit}_per_s": round(self.task.units / self.train_s, 1),
            "train_s": round(self.train_s, 3),
            "skipped_steps": self.learn.mixed_precision.skipped_steps,
        }
        self._check_finite(record["valid_loss"])
        self.history.append(record)
        shown = ", ".join(
            f"{name.replace('_', ' ')} {value:.4f}" for name, value in record.items()
            if isinstance(value, float) and not name.endswith("_s")
        )
        self.reporter.line(f"{self.title}: epoch done in {format_duration(self.train_s)}, {shown}")
        self.task.after_epoch(record)

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"{self.task.name}: the loss became {loss} in phase {self.phase.name}, epoch {self.epoch + 1}.",
                f"Lower the phase's lr, or set {self.task.name}.clip, e.g. --set {self.task.name}.clip=0.25.",
            )


class BestEpoch:
    """Keeps the weights of the epoch with the highest validation accuracy (the lower loss decides a tie)."""

    def __init__(self, folder: Path, save: Callable[[Path], None]) -> None:
        self._folder, self._save = folder, save

    @property
    def record(self) -> Record | None:
        """The history record of the best epoch so far."""
        path = self._folder / "record.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def offer(self, record: Record) -> None:
        """Keep the current weights if `record` is better than what is kept."""
        best = self.record
        if best is None or (record["accuracy"], -record["valid_loss"]) > (best["accuracy"], -best["valid_loss"]):
            temporary = self._folder.with_name(f"{self._folder.name}.tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self._save(temporary)
            (temporary / "record.json").write_text(json.dumps(record), encoding="utf-8")
            shutil.rmtree(self._folder, ignore_errors=True)
            temporary.rename(self._folder)
