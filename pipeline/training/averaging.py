"""Weight averaging: the equal mean of the weights at the end of the last epochs of a training stage.

Each of these epochs leaves its weights in a folder of its own until the stage is sealed, so that the mean is made of
the very same files however often the training was broken off. (Averaging along the way: Izmailov et al. 2018,
arXiv:1803.05407; here the statistics of batch norm are averaged too.)
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from fastai.callback.core import CancelTrainException
from fastai.learner import Callback
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline import stopping
from pipeline.training.checkpoints import CheckpointStore
from pipeline.training.group import ONE, Group
from pipeline.training.history import Record
from pipeline.training.learner import EpochRecorder, ResumableLearner
from pipeline.training.sharing import asked_to_stop
from pipeline.training.task import Task


@dataclass(frozen=True)
class Average:
    """The mean that was made at the end of a training; its weights are in the model."""

    epochs: list[int]
    """Numbers of the epochs whose final weights it is made of."""
    record: Record
    """Figures of its validation, as in the history."""

    def __str__(self) -> str:
        return f"mean of epochs {self.epochs[0]} to {self.epochs[-1]}"


class LastEpochs:
    """Keeps the weights at the end of the last `n` epochs, of at least `fewest`; nothing for an `n` of 1."""

    def __init__(self, store: CheckpointStore, task: Task, n: int, fewest: int, group: Group = ONE) -> None:
        self._group = group
        self.store, self._task, self._n, self._fewest = store, task, n, fewest

    def offer(self, epoch: int) -> None:
        """Keep the current weights if `epoch`, counted from 1, may be among the last ones."""
        if self._is_kept(epoch):
            self.store.save(epoch, self._task.save, self._task.weight_bytes)

    def _is_kept(self, epoch: int) -> bool:
        return self._n > 1 and epoch > self._fewest - self._n

    def _needed(self, done: int) -> list[int]:
        """The epochs that a mean of the last ones is made of when `done` epochs are done."""
        return [epoch for epoch in range(max(1, done - self._n + 1), done + 1) if self._is_kept(epoch)]

    def why_unusable(self, done: int) -> str | None:
        """Why a training cannot go on after `done` epochs: an epoch that belongs to the mean is damaged."""
        for epoch in self._needed(done):
            damage = self.store.damage(self.store.path(epoch))
            if damage is not None:
                return f"of epoch {epoch}, whose weights are to be averaged, {damage}"
        return None

    def average(self, done: int, folder: Path) -> list[int]:
        """Load the mean of the last epochs into the model, by way of `folder`; their numbers, none for an `n` of 1."""
        epochs = self._needed(done)
        if epochs:
            if self.store.writes:
                folder.mkdir(exist_ok=True)
                write_mean([self.store.path(epoch) for epoch in epochs], folder)
            self._group.wait_for_first()
            self._task.load(folder)
        return epochs


def write_mean(folders: Sequence[Path], into: Path) -> None:
    """Write the mean of the .safetensors files that `folders` share, tensor by tensor, summed in float64.

    Whole numbers, such as the batches that batch norm has seen, are those of the last folder.
    """
    for path in sorted(folders[-1].glob("*.safetensors")):
        mean: dict[str, Tensor] = {}
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(safe_open(folder / path.name, framework="pt")) for folder in folders]
            for name in files[-1].keys():  # noqa: SIM118  # not a dictionary
                mean[name] = last = files[-1].get_tensor(name)
                if last.is_floating_point():
                    total = torch.zeros_like(last, dtype=torch.float64)
                    for file in files:
                        total += file.get_tensor(name)
                    mean[name] = (total / len(files)).to(last.dtype)
        save_file(mean, into / path.name)


class ValidateOnly(Callback):
    """Leaves training out of a fit; obeys a stop between two batches of the validation."""

    order = EpochRecorder.order + 40

    def __init__(self, what: str) -> None:
        self.what = what

    def before_train(self) -> None:
        """Go straight to validation."""
        raise CancelTrainException

    def after_batch(self) -> None:
        """Raise Stopped if that was asked for."""
        stopping.obey(asked_to_stop(self.learn), self.what)


def validated(learn: ResumableLearner, task: Task) -> Record:
    """Validate the weights that are in the model; the figures of the history."""
    with learn.no_logging():
        learn.fit(1, cbs=[ValidateOnly(f"{task.name}, validating the mean of its last epochs,")])
    names, values = learn.recorder.metric_names[2:], learn.recorder.log[1:]  # no epoch, no training loss
    return task.summarize({n: float(v) for n, v in zip(names, values, strict=False) if n != "time"})
