"""Mixed precision for fastai's Learner on any device.

fastai's own callback always asks for CUDA's autocast and scaler, which turn into no-ops on a CPU: a run labelled
fp16 then trains in fp32. This one uses the device at hand and records the type that the model really put out.
"""

import contextlib

import torch
from fastai.callback.core import CancelStepException
from fastai.callback.fp16 import MixedPrecision as FastaiMixedPrecision
from fastai.learner import Callback
from fastai.torch_core import to_float

from pipeline.errors import UsageError
from pipeline.training.device import DTYPES, Device


class MixedPrecision(Callback):
    """Autocast in the forward pass and, for fp16, a gradient scaler that skips steps which overflow."""

    order = FastaiMixedPrecision.order

    def __init__(self, device: Device) -> None:
        self.device = device
        self.observed: set[torch.dtype] = set()
        """Types of the model's output in training, before it is made float32 for the loss; of its logits where the
        loss makes them."""

    def before_fit(self) -> None:
        """A scaler for every fit, as fastai makes it; disabled unless fp16."""
        self.scaler = torch.amp.GradScaler(self.device.device.type, enabled=self.device.precision == "fp16")
        self.contexts = contextlib.ExitStack()

    def before_batch(self) -> None:
        """Enter autocast."""
        self.contexts.enter_context(self.device.autocast())

    def after_pred(self) -> None:
        """The loss is computed in float32."""
        self._output_dtype = self.pred.dtype
        self.learn.pred = to_float(self.pred)

    def after_loss(self) -> None:
        """Note the output's type; leave autocast before the backward pass, as torch advises.

        UsageError if it is not what was asked for, or the LSTMs took another: where torch has no kernel of a type,
        autocast may choose one. Their output may be float32, of products in a smaller type.
        """
        self.contexts.close()
        if not self.training:
            return
        logits, lstm = getattr(self.learn.loss_func, "logits_dtype", self._output_dtype), self.rnn.raw_out.dtype
        self.observed.add(logits)
        if logits != self.device.dtype or lstm not in (self.device.dtype, torch.float32):
            raise UsageError(
                f"{self.device.precision} was asked for, but here torch computes LSTMs in {lstm} and logits in "
                f"{logits}.", "Use --set run.precision=fp32, or fp16 on a GPU.",
            )

    def after_cancel_batch(self) -> None:
        """Leave autocast when a batch is cut short."""
        self.contexts.close()

    def before_backward(self) -> None:
        """Scale the loss so that small float16 gradients do not vanish."""
        self.learn.loss_grad = self.scaler.scale(self.loss_grad)

    def before_step(self) -> None:
        """Unscale the gradients; skip the step if any is infinite."""
        if not self.scaler.is_enabled():
            return
        self._stepped = False
        self.scaler.step(self)  # calls self.step() only if all gradients are finite
        if not self._stepped:
            raise CancelStepException

    def after_step(self) -> None:
        """Let the scale grow or shrink; runs after skipped steps too."""
        self.scaler.update()

    @property
    def param_groups(self) -> list[dict[str, list[torch.nn.Parameter]]]:
        """The optimizer's parameters, as the scaler wants them."""
        groups: list[dict[str, list[torch.nn.Parameter]]] = self.opt.param_groups
        return groups

    def step(self) -> None:
        """Called by the scaler in place of an optimizer's step."""
        self._stepped = True

    @property
    def effective(self) -> str:
        """What really ran."""
        (name,) = (name for name, dtype in DTYPES.items() if dtype in self.observed)
        return name
