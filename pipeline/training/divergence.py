"""Gradients that are no numbers: the step is skipped and counted; too many in a row end the stage.

What is no number stays nowhere: neither in a hidden state nor, of a step that is skipped, in the statistics of batch
norm.
"""

import math

import torch
from fastai.callback.core import CancelStepException
from fastai.learner import Callback
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pipeline.errors import DivergedError
from pipeline.training.precision import MixedPrecision


class GradientGuard(Callback):
    """Clips the norm of the gradient and skips steps with NaN or infinity in loss or gradient.

    Counts the steps that a gradient scaler skipped too.
    """

    order = MixedPrecision.order + 1  # after the gradients were unscaled
    run_valid = False

    def __init__(self, stage: str, clip: float | None, max_skipped: int) -> None:
        self.stage, self.clip, self.max_skipped = stage, clip, max_skipped
        self.skipped_steps = 0
        """Steps skipped in the whole stage."""
        self.in_a_row = 0
        """Steps skipped since the last one that was done."""
        self.loss_value = 0.0
        """Loss of the last batch; read from the device once for everyone."""

    def before_fit(self) -> None:
        """Nothing has been skipped yet."""
        self._keep_statistics()

    def _keep_statistics(self) -> None:
        self._statistics = [buffer.clone() for buffer in self.model.buffers()]

    @property
    def loss_is_finite(self) -> bool:
        """False if the loss of the last batch is no number or infinite."""
        return math.isfinite(self.loss_value)

    def before_backward(self) -> None:
        """A new step, or another of the batches that it is made of."""
        if self.accumulation.begins:
            self._skipped, self._losses_are_finite = False, True
        if not self.accumulation.completes:
            self.loss_value = float(self.loss.detach())
            self._losses_are_finite &= self.loss_is_finite

    def before_step(self) -> None:
        """Skip the step if one of its losses or any gradient is not finite, else clip."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = get_total_norm(p.grad for p in parameters)
        self.loss_value, norm_value = torch.stack([self.loss.detach(), norm]).tolist()
        if not (self._losses_are_finite and self.loss_is_finite and math.isfinite(norm_value)):
            raise CancelStepException
        if self.clip is not None:
            clip_grads_with_norm_(parameters, self.clip, norm)

    def after_cancel_step(self) -> None:
        """The step was skipped, here or by the scaler."""
        self._skipped = True
        self.loss_value = float(self.loss.detach())

    def after_step(self) -> None:
        """Count."""
        self.in_a_row = self.in_a_row + 1 if self._skipped else 0
        if not self._skipped:
            return
        self.skipped_steps += 1
        if self.in_a_row > self.max_skipped:
            raise DivergedError(
                f"{self.stage}: {self.in_a_row} steps in a row had no finite loss or gradient "
                f"(epoch {self.epoch + 1}, step {self.iter + 1}); the last good checkpoint is kept.",
                f"Lower the phase's lr, or set {self.stage}.clip, e.g. --set {self.stage}.clip=0.25, with --force.",
            )

    def after_batch(self) -> None:
        """Forget what a batch whose loss was no number has left in the model, which would spoil all that follow."""
        if not self.loss_is_finite:
            self.model.reset()
        if not self.accumulation.completes:
            return
        if self._skipped:
            for buffer, kept in zip(self.model.buffers(), self._statistics, strict=True):
                buffer.copy_(kept)
        else:
            self._keep_statistics()
