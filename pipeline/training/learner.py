"""fastai's text Learner, able to begin at any batch of any epoch, and its recorder without per-step memory."""

from fastai.callback.core import CancelBackwardException, CancelEpochException, CancelStepException
from fastai.learner import Recorder
from fastai.text.learner import TextLearner


class ResumableLearner(TextLearner):
    """A TextLearner that can begin in the middle of a fit; its loaders give their batches from any number on.

    The optimizer takes a step when `Accumulation` says that a group of batches is complete.
    Gradients are dropped after each step instead of being filled with zeros, so that the first step after a resume
    adds to nothing, like every other step.
    """

    first_epoch = 0
    """Epoch of the fit that comes first."""
    first_train_batch = 0
    first_valid_batch = 0
    """Batches of that epoch that are done already."""
    ends_early = False
    """Set by a callback: the epoch is the last one of the fit."""

    def _do_fit(self) -> None:
        self.ends_early = False
        for epoch in range(self.first_epoch, self.n_epoch):
            self.epoch = epoch
            self._with_events(self._do_epoch, "epoch", CancelEpochException)
            if self.ends_early:
                break
        self.first_epoch = 0

    def all_batches(self) -> None:
        """All batches that are not done yet."""
        self.n_iter = len(self.dl)
        if self.training:
            first, self.first_train_batch = self.first_train_batch, 0
        else:
            first, self.first_valid_batch = self.first_valid_batch, 0
        for number, batch in enumerate(self.dl.batches(self.dl.epoch, first), first):
            self.one_batch(number, batch)

    def _do_grad_opt(self) -> None:
        self._with_events(self._backward, "backward", CancelBackwardException)
        if self.accumulation.completes:
            self._with_events(self._step, "step", CancelStepException)
            self.model.zero_grad(set_to_none=True)


class EpochRecorder(Recorder):
    """fastai's Recorder without the loss tensor of every step, and deaf to steps whose loss is no number.

    Small tensors that live long, between large ones that do not, cut the C library's heap to pieces: with
    `keep_freed_memory` a run grew by 0.4 MB a step (measured), for as long as it lasted.
    """

    name = "recorder"

    def after_batch(self) -> None:
        """Record, then forget the step."""
        if self.training and not self.learn.gradient_guard.loss_is_finite:
            return
        super().after_batch()
        self.losses.clear()
