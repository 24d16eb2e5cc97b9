"""Gradient accumulation: several batches give the gradient of one batch of all their rows.

A language model's rows carry a hidden state, so its loader gives the rows of one wide batch in groups, one after the
other, and each group goes on from its own state. B rows of a batch.
"""

from typing import Any

from fastai.learner import Callback
from torch import Tensor

from pipeline.training.precision import MixedPrecision
from pipeline.training.task import Task


class Accumulation(Callback):
    """Says where a group of `n` batches begins and ends, weighs their losses, keeps the state of each group of rows.

    The last group of an epoch may be shorter. Regularizers are weighed like the loss.
    """

    order = MixedPrecision.order + 0.5  # when gradients are unscaled, before they are clipped
    run_valid = False

    def __init__(self, task: Task, n: int) -> None:
        self.task, self.n = task, n
        self.row_groups: list[Any] = [None] * n
        """Hidden state of each group of rows but the one that the encoder holds; None at a beginning."""
        self.share = 1.0
        """Of the batch in the gradient of a full group; its loss, a mean over the batch, is weighed by it."""

    @property
    def begins(self) -> bool:
        """True in the first batch of a step of the optimizer."""
        return self.iter % self.n == 0

    @property
    def completes(self) -> bool:
        """True in the last batch of a step of the optimizer."""
        return (self.iter + 1) % self.n == 0 or self.iter + 1 == self.n_iter

    def before_train(self) -> None:
        """All rows begin anew."""
        self.row_groups = [None] * self.n

    def before_batch(self) -> None:
        """Put the state of these rows in the place of that of the rows before them."""
        if self.begins:
            self._rows = 0.0
        encoder = self.model[0]
        if self.n == 1 or not hasattr(encoder, "hidden"):
            return
        here = self.iter % self.n
        if self.iter:
            self.row_groups[here - 1] = encoder.hidden
        if self.row_groups[here] is None:
            self.model.reset()
        else:
            encoder.hidden = self.row_groups[here]

    def before_backward(self) -> None:
        """Weigh the loss by the batch's share."""
        if self.n > 1:
            rows = self._weight(self.yb[0])
            self._rows += rows
            self.share = rows / self._full
            self.learn.loss_grad = self.loss_grad * self.share

    def before_step(self) -> None:
        """Make up for what a group lacks."""
        if self.n > 1 and self._rows != self._full:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self._full / self._rows)

    @property
    def _full(self) -> int:
        return self.task.train.bs * self.n

    def _weight(self, targets: Tensor) -> float:
        return len(targets) if self.task.weigh is None else self.task.weigh(targets)
