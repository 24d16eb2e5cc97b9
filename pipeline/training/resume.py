"""Exact resume of a training stage: what a checkpoint holds, when it is written, and how it is put back.

A run that goes on from a checkpoint ends bit-equal to one that was never broken: weights, optimizer, scaler, schedule,
random generators, hidden state, running metrics and history all go on where they were, and the data order is a
function of seed and epoch.
"""

import shlex
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from fastai.learner import Callback
from fastcore.foundation import L
from torch import Tensor

from pipeline import stopping
from pipeline.attempt import CHECKPOINTS
from pipeline.errors import UsageError
from pipeline.progress import Reporter
from pipeline.training.averaging import LastEpochs
from pipeline.training.checkpoints import CheckpointStore
from pipeline.training.curve import Curve
from pipeline.training.device import DTYPES, Device
from pipeline.training.divergence import GradientGuard
from pipeline.training.group import ONE, Group
from pipeline.training.history import Record
from pipeline.training.learner import EpochRecorder, ResumableLearner
from pipeline.training.precision import MixedPrecision
from pipeline.training.sharing import asked_to_stop
from pipeline.training.state import (
    generator_states,
    read_plain,
    read_state,
    restore_generators,
    size_bytes,
    write_state,
)
from pipeline.training.task import Task
from pipeline.training_settings import TrainingSettings


@dataclass(frozen=True)
class Position:
    """What comes next: epochs and batches that are done, counted from 0."""

    phase: int = 0
    epoch: int = 0
    train_batches: int = 0
    valid_batches: int = 0
    steps: int = 0
    """Training steps since the stage began."""
    moment: int = 0
    """Batches of training and validation and epochs since the stage began: the number of the checkpoint."""


class BestEpoch:
    """Keeps the weights of the epoch with the highest validation accuracy (the lower loss decides a tie)."""

    def __init__(self, store: CheckpointStore, task: Task) -> None:
        self.store, self._task = store, task
        self.record: Record | None = None
        """The history record of the best epoch so far."""

    @property
    def folder(self) -> Path:
        """Where its weights lie."""
        assert self.record is not None, "no epoch was offered"
        return self.store.path(self.record["epoch"])

    def offer(self, record: Record) -> None:
        """Keep the current weights if `record` is better than what is kept."""
        if self.record is None or self._task.is_better(record, self.record):
            self.store.save(record["epoch"], self._task.save, self._task.weight_bytes)
            self.record = record

    def why_unusable(self, checkpoint: Path) -> str | None:
        """Why the best epoch that `checkpoint` knows of cannot be used."""
        record = read_plain(checkpoint)["best"]
        damage = None if record is None else self.store.damage(self.store.path(record["epoch"]))
        return None if damage is None else f"of its best epoch, {damage}"


class Checkpointer(Callback):
    """Writes checkpoints in time, on request and at the end of each epoch, and puts the newest valid one back."""

    order = EpochRecorder.order + 40  # when everything else has dealt with the batch or the epoch
    learn: ResumableLearner

    def __init__(
        self, task: Task, settings: TrainingSettings, device: Device, *, fewest_epochs: int,
        resume: Path, fingerprint: str, reporter: Reporter, group: Group = ONE,
    ) -> None:
        """`fewest_epochs` is how many the stage has if every phase that may end early does; rank 0 of `group` writes.
        """
        self.group = group
        self.task, self.settings, self.device, self.reporter = task, settings, device, reporter
        keep, n = settings.keep_checkpoints, settings.average_epochs

        def store(keep: int, prefix: str) -> CheckpointStore:
            return CheckpointStore(
                resume / CHECKPOINTS, fingerprint, keep=keep, reporter=reporter, prefix=prefix, writes=group.rank == 0
            )

        self.store = store(keep, "checkpoint")
        # Every kept checkpoint may know of another best epoch, and one more is made before its checkpoint.
        self.best = BestEpoch(store(keep + 1, "best"), task)
        self.last = LastEpochs(store(keep + n, "epoch"), task, n, fewest_epochs, group)
        self.history: list[Record] = []
        self.curve = Curve()
        self.position = Position()
        self.phase = 0
        self.train_s = 0.0
        """Time spent on the training batches of the current epoch, by this process and those before it."""
        self._state: dict[str, Any] | None = None
        self._steps = self._saved_steps = self._moment = 0
        self._saved_at = time.monotonic()

    def find(self) -> Position:
        """Load the weights and history of the newest valid checkpoint, if there is one; where to go on.

        UsageError if its precision is not that of this device: `auto` may mean another one elsewhere.
        """
        number = self.group.say(self._newest() if self.store.writes else None)
        if number is not None:
            self._read(self.store.path(number))
        for store in (self.best.store, self.last.store):
            store.forget_after(len(self.history))  # weights of an epoch that is done again, whose last bits may differ
        return self.position

    def _read(self, path: Path) -> None:
        state = self._state = read_state(path)
        if state["observed"] != [self.device.precision]:
            raise UsageError(
                f"{self.task.name} was trained in {' and '.join(state['observed'])} up to {path.name}; here "
                f"run.precision={self.device.requested} is {self.device.precision}.",
                "Go on on a machine like the one before, or start anew here: "
                f"rm -r {shlex.quote(str(path.parent))}, and then the same command.",
            )
        self.task.load(path)
        self.group.wait_for_all()
        self.position = Position(**state["position"])
        self.history[:] = state["history"]
        if "curve" in state:  # a checkpoint of before there were curves has none
            self.curve.restore(state["curve"])
        self.best.record = state["best"]
        self.train_s = state["train_s"]
        self._steps = self._saved_steps = self.position.steps
        self._moment = self.position.moment
        here = self._surroundings()
        then = {"processes": "1", **state["surroundings"]}  # those of before there could be several do not say it
        differs = [f"{name} {then[name]}, now {here[name]}" for name in here if then[name] != here[name]]
        self.reporter.line(
            f"{self.task.name}: going on after step {self.position.steps:,} ({path.name})"
            + (f"; last bits may differ from an unbroken run, since it had {', '.join(differs)}" if differs else "")
        )

    def _newest(self) -> int | None:
        path = self.store.newest(
            lambda path: self.best.why_unusable(path) or self.last.why_unusable(len(read_plain(path)["history"]))
        )
        return None if path is None else int(read_plain(path)["position"]["moment"])

    def restore_counters(self, precision: MixedPrecision, guard: GradientGuard) -> None:
        """What must be known even if no step is left to do."""
        if self._state is not None:
            precision.observed |= {DTYPES[name] for name in self._state["observed"]}
            guard.skipped_steps = self._state["skipped_steps"]
            guard.in_a_row = self._state["skipped_in_a_row"]

    def before_train(self) -> None:
        """Put everything back that fastai has just set to its beginning."""
        state = self._state
        if state is None or state["optimizer"] is None:
            self._state = None
            return
        device = self.device.device
        self.opt.load_state_dict(_optimizer_state(state["optimizer"], device))
        self.mixed_precision.scaler.load_state_dict(state["scaler"])
        self.learn.train_iter = state["train_iter"]
        if self.position.train_batches:  # at the beginning of an epoch fastai has just set it, exactly
            self.learn.pct_train = state["pct_train"]
        _put_back(self.recorder.smooth_loss, state["smooth_loss"])
        if state["hidden"] is not None and not self.position.valid_batches:
            self._restore_hidden(state["hidden"], self.task.train.bs)
            self.accumulation.row_groups[:-1] = [
                None if layers is None else self._mine(layers, self.task.train.bs) for layers in state["row_groups"]
            ]
        restore_generators(state["generators"], device)
        if not self.position.valid_batches:
            self._state = None

    def before_validate(self) -> None:
        """The same for a validation that was broken off."""
        if self._state is not None:
            for metric, values in zip(self.recorder._valid_mets, self._state["metrics"], strict=True):
                _put_back(metric, values)
            self._restore_hidden(self._state["hidden"], self.task.valid.bs)
            self._state = None

    def after_batch(self) -> None:
        """Save if it is time, or if a stop was asked for, which is then obeyed."""
        self._steps += self.training
        self._moment += 1
        if self.training and not self.accumulation.completes:
            return  # gradients are not saved: a stop waits for the step that they are gathered for
        reason = asked_to_stop(self.learn)
        due = self.due() if self.group.size == 1 else self.learn.reduction.due
        # In a row of skipped steps the way back should lead to before them; a stop wants its place kept all the same.
        if reason or (due and not self.gradient_guard.in_a_row):
            done = self.iter + 1
            train, valid = (done, 0) if self.training else (len(self.dls.train), done)
            self.train_s = self.phase_log.train_seconds()
            self._save(Position(self.phase, self.epoch, train, valid, self._steps, self._moment))
        stopping.obey(reason, f"{self.task.name} after step {self._steps:,}")

    def after_epoch(self) -> None:
        """Save; the record of the epoch is in the history."""
        self.train_s = 0.0
        self._moment += 1
        self.group.wait_for_first()  # which may have kept weights of the epoch
        if self.gradient_guard.in_a_row:
            return
        done = self.n_epoch if self.ends_early else self.epoch + 1
        self._save(Position(self.phase, done, 0, 0, self._steps, self._moment))

    def due(self, coming_steps: int = 0) -> bool:
        """True if it is time for a checkpoint when `coming_steps` more are done."""
        minutes = self.settings.checkpoint_minutes
        if minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes:
            return True
        steps = self.settings.checkpoint_steps
        return steps is not None and self.training and self._steps + coming_steps - self._saved_steps >= steps

    def _save(self, position: Position) -> None:
        guard = self.gradient_guard
        state = {
            "position": asdict(position),
            "history": self.history,
            "curve": self.curve.state(),
            "best": self.best.record,
            "train_s": self.train_s,
            "skipped_steps": guard.skipped_steps,
            "skipped_in_a_row": guard.in_a_row,
            "observed": [name for name, dtype in DTYPES.items() if dtype in self.mixed_precision.observed],
            "surroundings": self._surroundings(),
            **self._running(position),
        }

        def write(folder: Path) -> None:
            self.task.save(folder)
            write_state(state, folder)

        self.store.save(position.moment, write, self.task.weight_bytes + size_bytes(state))
        self.group.wait_for_first()
        self._saved_steps, self._saved_at = self._steps, time.monotonic()

    def _running(self, position: Position) -> dict[str, Any]:
        """State that lives within a phase; the next phase begins with its own."""
        if position.epoch == self.n_epoch:
            return {"optimizer": None}
        return {
            "optimizer": {
                "state": [dict(entry) for entry in self.opt.state_dict()["state"]],
                "hypers": [{name: float(value) for name, value in h.items()} for h in self.opt.hypers],
            },
            "scaler": self.mixed_precision.scaler.state_dict(),
            "generators": generator_states(self.device.device),
            "hidden": self._hidden(position) if position.train_batches else None,
            "row_groups": [] if position.valid_batches or not position.train_batches else [
                None if layers is None else self._whole(layers, self.task.train.bs)
                for layers in self.accumulation.row_groups[:-1]
            ],
            "smooth_loss": _numbers(self.recorder.smooth_loss),
            "metrics": [_numbers(metric) for metric in self.recorder._valid_mets],
            "pct_train": float(self.learn.pct_train),
            "train_iter": self.learn.train_iter,
        }

    def _surroundings(self) -> dict[str, str]:
        return {
            "torch": torch.__version__, "device": str(self.device.device), "threads": str(torch.get_num_threads()),
            "processes": str(self.group.size),
        }

    def _hidden(self, position: Position) -> dict[str, Any] | None:
        """The hidden state that a language model carries from batch to batch, of all rows; a classifier has none."""
        encoder = self.task.model[0]  # type: ignore[index]
        if not hasattr(encoder, "hidden"):
            return None
        bs = self.task.valid.bs if position.valid_batches else self.task.train.bs
        return {"layers": self._whole(encoder.hidden, bs)}

    def _restore_hidden(self, hidden: dict[str, Any] | None, bs: int) -> None:
        if hidden is not None:
            encoder = self.task.model[0]  # type: ignore[index]
            encoder.hidden = self._mine(hidden["layers"], bs)
            if encoder.hidden:  # none after a step whose loss was no number, for models that begin without
                encoder.bs = encoder.hidden[0][0].shape[1]

    def _whole(self, layers: Any, bs: int) -> Any:
        """The hidden state [1, rows of this rank, ...] of each layer, with the rows of all ranks."""
        return [tuple(self.group.gather_rows(part, bs, dim=1) for part in layer) for layer in layers]

    def _mine(self, layers: Any, bs: int) -> list[tuple[Tensor, ...]]:
        """The rows of this rank of the hidden state of each layer, on its device."""
        rows = slice(None) if self.group.size == 1 else self.group.part(bs)
        return [tuple(part[:, rows].contiguous().to(self.device.device) for part in layer) for layer in layers]


def _numbers(metric: Any) -> dict[str, Any]:
    """The running sums of a metric."""
    return {name: value for name, value in vars(metric).items() if isinstance(value, int | float | Tensor)}


def _put_back(metric: Any, values: dict[str, Any]) -> None:
    vars(metric).update(values)


def _optimizer_state(saved: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """`saved` in the form that fastai's optimizer takes, on the device of the weights."""
    entries = [
        {name: value.to(device) if isinstance(value, Tensor) else value for name, value in entry.items()}
        for entry in saved["state"]
    ]
    return {"state": entries, "hypers": L(saved["hypers"])}
