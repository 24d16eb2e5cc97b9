"""What really runs: precision, loss scaling, and the refusal of what cannot run."""

import fastai.callback.schedule  # noqa: F401  # gives Learner its fit_one_cycle
import numpy as np
import pytest
import torch
from documents import counting_documents
from fastai.callback.rnn import RNNCallback
from fastai.data.core import DataLoaders
from fastai.learner import Callback
from fastai.losses import CrossEntropyLossFlat
from fastai.text.learner import TextLearner

from pipeline.errors import UsageError
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.settings import RunSettings
from pipeline.training.device import Device, cpu_has_bf16, onednn_has_bf16, resolve_device
from pipeline.training.loaders import LanguageModelLoader
from pipeline.training.precision import MixedPrecision
from pipeline.training_settings import FinetuneLMSettings

ARCHITECTURE = Architecture(vocabulary_size=32, emb_sz=16, n_hid=24, n_layers=2)


def learner(device: Device, precision: MixedPrecision, *callbacks: Callback) -> TextLearner:
    torch.manual_seed(0)
    model = build_language_model(ARCHITECTURE, FinetuneLMSettings(drop_mult=0.1))
    loader = LanguageModelLoader(counting_documents(8, 100), np.arange(8), bs=4, seq_len=10)
    return TextLearner(
        DataLoaders(loader, loader, device=device.device), model, loss_func=CrossEntropyLossFlat(),
        cbs=[precision, *callbacks],
    )


def fit(device: Device, *callbacks: Callback, lr: float = 5e-2) -> tuple[TextLearner, MixedPrecision]:
    precision = MixedPrecision(device)
    learn = learner(device, precision, *callbacks)
    with learn.no_bar(), learn.no_logging(), device.kernels():
        learn.fit_one_cycle(1, lr)
    return learn, precision


class OverflowAt(Callback):
    """Make the gradients of one step infinite."""

    order = MixedPrecision.order - 1

    def __init__(self, step: int) -> None:
        self.at, self.skipped = step, 0
        self.scales: list[float] = []
        self.weights: list[torch.Tensor] = []

    def before_step(self) -> None:
        self.scales.append(self.learn.mixed_precision.scaler.get_scale())
        self.weights.append(self.model[0].encoder.weight.detach().clone())
        if self.iter == self.at:
            next(self.model.parameters()).grad[0, 0] = torch.inf

    def after_cancel_step(self) -> None:
        self.skipped += 1


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_requested_precision_really_runs_on_the_cpu(name: str) -> None:
    device = Device(torch.device("cpu"), name, name)
    learn, precision = fit(device)
    assert precision.effective == name
    assert precision.observed == {device.dtype}
    assert learn.recorder.losses[-1] < learn.recorder.losses[0]
    assert all(p.dtype == torch.float32 for p in learn.model.parameters())
    assert ("only emulates" in device.describe()) == (name == "bf16" and not onednn_has_bf16())


def test_an_lstm_in_another_precision_is_refused_at_the_first_step() -> None:
    """As where autocast of bfloat16 runs cuDNN's LSTM in float16."""

    class AnotherType(Callback):
        order = RNNCallback.order + 1

        def after_pred(self) -> None:
            self.learn.rnn.raw_out = self.learn.rnn.raw_out.half()

    with pytest.raises(UsageError, match=r"bf16 was asked for, but here torch computes LSTMs in torch\.float16 and .*"):
        fit(Device(torch.device("cpu"), "bf16", "bf16"), AnotherType())


def test_fp16_skips_the_step_that_overflows_and_halves_the_scale() -> None:
    overflow = OverflowAt(step=5)
    fit(Device(torch.device("cpu"), "fp16", "fp16"), overflow)
    assert overflow.skipped == 1
    assert overflow.scales[5] == 65536.0
    assert overflow.scales[6] == 32768.0
    assert torch.equal(overflow.weights[6], overflow.weights[5])
    assert not torch.equal(overflow.weights[5], overflow.weights[4])


def test_fp16_scale_grows_after_enough_clean_steps() -> None:
    class GrowFast(Callback):
        order = MixedPrecision.order + 1

        def before_fit(self) -> None:
            self.learn.mixed_precision.scaler.set_growth_interval(4)

    _, precision = fit(Device(torch.device("cpu"), "fp16", "fp16"), GrowFast())
    assert precision.scaler.get_scale() >= 2 * 65536.0


def test_auto_takes_bf16_where_the_cpu_has_it() -> None:
    device = resolve_device(RunSettings(device="cpu"))
    assert device.precision == ("bf16" if cpu_has_bf16() else "fp32")
    assert device.requested == "auto"


def test_fp16_on_a_cpu_is_refused_unless_allowed() -> None:
    with pytest.raises(UsageError, match=r"run\.precision is fp16.*--set run\.allow_fp16_on_cpu=true"):
        resolve_device(RunSettings(device="cpu", precision="fp16"))
    device = resolve_device(RunSettings(device="cpu", precision="fp16", allow_fp16_on_cpu=True))
    assert device.precision == "fp16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_a_missing_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match=r"run\.device is cuda, but torch sees no such GPU here\."):
        resolve_device(RunSettings(device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_auto_is_fp16_on_cuda() -> None:
    device = resolve_device(RunSettings())
    _, precision = fit(device)
    assert (device.precision, precision.effective) == ("fp16", "fp16")
    assert device.gpu == torch.cuda.get_device_name()
