"""What several processes that train one model add to a step: each has its rows, and together they are the batch.

Everything that one process would decide alone, from the loss to a stop, comes out of sums over the processes, so that
all of them hold the same weights and are at the same place. B rows of the whole batch, F pooled features.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fastai.callback.rnn import RNNRegularizer
from fastai.learner import Callback, Learner
from torch import Tensor
from torch.autograd import Function

from pipeline import stopping
from pipeline.errors import UsageError
from pipeline.training.group import Group
from pipeline.training.precision import MixedPrecision
from pipeline.training.task import Task
from pipeline.training_settings import TrainingSettings

_FOR_ALL = 0
"""In the place of a rank among what seeds the random numbers that all ranks draw alike."""


def asked_to_stop(learn: Learner) -> str | None:
    """Why the training should stop after this batch, or None; several processes agree on it."""
    reduction = getattr(learn, "reduction", None)
    if reduction is None:
        return stopping.asked()
    return (stopping.asked() or "a signal to another process") if reduction.stop else None


def shared(task: Task, group: Group) -> Task:
    """`task` as a rank of `group` does its part of it; UsageError if there are too few rows or it cannot be shared."""
    if group.size == 1 or task.pools:
        return task
    bs = task.train.bs
    if not group.splits(bs):
        raise UsageError(
            f"{task.name}.bs is {bs}, and there are {group.size} processes: some would have nothing to do.",
            f"Start fewer, or set {task.name}.bs to {group.size} or more.",
        )
    return replace(task, weigh=lambda targets: bs)  # the targets of a rank are not all


def sharing(task: Task, settings: TrainingSettings, group: Group, seed: int) -> list[Callback]:
    """The callbacks of a training by several processes; none for one that is alone."""
    if group.size == 1:
        return []
    return [SharedLoss(task, settings, group), Reduction(task, group), RandomNumbers(task, group, seed)]


class SharedLoss(Callback):
    """Weighs loss and regularizers so that gradients that are added over the ranks are those of the whole batch.

    Takes the place of fastai's RNNRegularizer, which leaves TAR out for one row: here the whole batch counts.
    """

    order = RNNRegularizer.order
    run_valid = False

    def __init__(self, task: Task, settings: TrainingSettings, group: Group) -> None:
        self.task, self.settings, self.group = task, settings, group

    def after_loss(self) -> None:
        """A classifier's loss is that of all rows, whose gradient its pooling hands to the rank that has the row."""
        rows = whole_rows(self.learn, self.task)
        share = len(self.xb[0]) / rows
        total = self.loss_grad if self.task.pools else self.loss_grad * share
        if share and self.settings.alpha:
            total = total + self.settings.alpha * share * self.rnn.out.float().pow(2).mean()
        if share and self.settings.beta and rows > 1:
            h = self.rnn.raw_out
            total = total + self.settings.beta * share * (h[:, 1:] - h[:, :-1]).float().pow(2).mean()
        self.learn.loss_grad = total


class Reduction(Callback):
    """Adds gradients and loss over the ranks before anything looks at them, and lets all stop and save together.

    One buffer goes around per step: the gradients, which of them there are, the loss, and whether any rank was asked to
    stop or rank 0 finds that a checkpoint is due.
    """

    order = MixedPrecision.order - 0.5

    def __init__(self, task: Task, group: Group) -> None:
        self.task, self.group = task, group
        self.stop = self.due = False
        """What was agreed on for the end of this batch."""
        self._buffer = torch.empty(0)

    def after_loss(self) -> None:
        """In validation: loss, hits and requests of all ranks."""
        if self.training:
            return
        loss_func = self.learn.loss_func
        counts = [float(loss_func.hits), float(loss_func.tokens)] if hasattr(loss_func, "hits") else []
        weight = self._weight()
        values = torch.tensor(
            [float(self.loss) * weight, *self._requests(0), *counts], dtype=torch.float64, device=self.loss.device
        )
        self.group.add(values)
        loss, stop, due, *counts = values.tolist()
        self.learn.loss = self.loss.new_tensor(loss)
        self.stop, self.due = stop > 0, due > 0
        if counts and self.group.splits(self.dl.bs):
            loss_func.hits, loss_func.tokens = torch.tensor(round(counts[0])), round(counts[1])

    def before_backward(self) -> None:
        """Where more batches belong to the step, their losses are added at once, their gradients at its end."""
        if not self.accumulation.completes:
            loss = self.loss.detach() * self._weight()
            self.group.add(loss)
            self.learn.loss = loss

    def before_step(self) -> None:
        """Add everything over the ranks."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        ends = np.cumsum([p.numel() for p in parameters]).tolist()
        tail = [*(float(p.grad is not None) for p in parameters), 0.0, *self._requests(1)]
        size = ends[-1] + len(tail)
        if len(self._buffer) != size:
            self._buffer = torch.empty(size, dtype=parameters[0].dtype, device=self.loss.device)
        values = self._buffer[ends[-1] :]
        values.copy_(torch.tensor(tail))
        values[-3] = self.loss.detach() * self._weight()
        alike = {id(p) for p in self.model[1].parameters()} if self.task.pools else set()
        views = []
        for parameter, end in zip(parameters, ends, strict=True):
            view = self._buffer[end - parameter.numel() : end].view_as(parameter)
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
            if id(parameter) in alike:  # every rank has computed it; their mean is the same on all, whatever the kernel
                view.div_(self.group.size)
            views.append(view)
        self.group.add(self._buffer)
        *there, _, stop, due = values.tolist()
        for parameter, view, found in zip(parameters, views, there, strict=True):
            parameter.grad = view if found else None
        self.learn.loss = values[-3].to(self.loss.dtype, copy=True)
        self.stop, self.due = stop > 0, due > 0

    def _weight(self) -> float:
        """What this rank's loss counts for in the sum over all; those that have all rows have the same one."""
        if self.task.pools or not self.group.splits(self.dl.bs):
            return 1 / self.group.size
        return len(self.xb[0]) / self.dl.bs

    def _requests(self, coming_steps: int) -> list[float]:
        checkpointer = getattr(self.learn, "checkpointer", None)
        due = self.group.ranks.first and checkpointer is not None and checkpointer.due(coming_steps)
        return [float(stopping.asked() is not None), float(due)]


class RandomNumbers(Callback):
    """Seeds every batch by its place and the rank: a checkpoint needs nothing of the generators of all ranks.

    Puts the features of all ranks together in front of a classifier's head, which draws the same on every rank.
    """

    run_valid = True

    def __init__(self, task: Task, group: Group, seed: int) -> None:
        self.task, self.group, self.seed = task, group, seed

    def before_fit(self) -> None:
        """Let the head see all rows."""
        if self.task.pools:
            self.model[1].together = self._together

    def before_batch(self) -> None:
        """Seed what the rows of this rank draw."""
        self._seed(self.group.rank + 1)

    def _together(self, features_F: Tensor) -> Tensor:
        self._seed(_FOR_ALL)
        together: Tensor = _Together.apply(features_F, self.group, len(self.yb[0]))
        return together

    def _seed(self, rank: int) -> None:
        if self.training:
            at = [self.seed, self.checkpointer.phase, len(self.checkpointer.history), self.iter, rank]
            torch.manual_seed(int(np.random.SeedSequence(at).generate_state(1, np.uint64)[0] >> 1))


class _Together(Function):
    """Features [rows of this rank, F] -> [B, F]: rank r of n has the rows r, r + n, r + 2n, ..."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, group: Group, rows: int) -> Tensor:
        ctx.group = group
        dtype = torch.promote_types(features.dtype, torch.float32)  # which every backend sends
        padded = features.new_zeros((-(-rows // group.size), features.shape[1]), dtype=dtype)
        padded[: len(features)] = features
        whole = group.gather(padded)
        return whole.transpose(0, 1).reshape(-1, features.shape[1])[:rows].to(features.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0][ctx.group.rank :: ctx.group.size].contiguous(), None, None


def whole_rows(learn: Learner, task: Task) -> int:
    """B of the current batch: a classifier's targets are those of all ranks."""
    return len(learn.yb[0]) if task.pools else int(learn.dl.bs)


def rows_of_rank(group: Group) -> slice:
    """The rows of a classifier's batch for this rank: every n-th, so that lengths are balanced."""
    return slice(group.rank, None, group.size)
