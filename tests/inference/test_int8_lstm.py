"""LSTM layers in 8 bits: the compiled kernel against torch's LSTM with the same rounded weights."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.inference.int8_lstm import Int8Lstm
from pipeline.inference.models import run_settings
from pipeline.pretrained import DEFAULT_MODEL, shipped
from pipeline.settings import PredictionSettings, RunSettings
from pipeline.training import device as devices
from pipeline.training.device import Device

INT8 = PredictionSettings(precision="int8", device="cpu")
TEXTS = ["A warm, witty film that never drags.", "Dull. I left after an hour.", "", "Two stars for the cast. " * 60]


@pytest.mark.parametrize(("n_in", "n_hid"), [(5, 7), (64, 96), (400, 768)])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1), (torch.float32, 50), (torch.bfloat16, 1)])
def test_a_single_row_reads_as_torch_does(n_in: int, n_hid: int, dtype: torch.dtype, size: float) -> None:
    torch.manual_seed(n_in)
    layer = Int8Lstm(nn.LSTM(n_in, n_hid, batch_first=True)).to(dtype)
    rows = size * torch.randn(1, 40, n_in)  # large ones put gates where they are 0 or 1
    exact = copy.deepcopy(layer.lstm).float()
    with torch.inference_mode():
        expected, _ = exact(rows)
        first, state = layer(rows[:, :15].to(dtype))
        second, (hidden, cell) = layer(rows[:, 15:].to(dtype), state)
    found = torch.cat([first, second], dim=1)
    assert found.dtype == hidden.dtype == cell.dtype == dtype
    assert hidden.shape == cell.shape == (1, 1, n_hid)
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=2e-4 if dtype == torch.float32 else 2e-2)
    assert expected.abs().mean() > 0.05


def test_no_weight_is_off_by_more_than_half_a_step() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(64, 96, batch_first=True)
    before = copy.deepcopy(lstm)
    Int8Lstm(lstm)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        given, rounded = getattr(before, name), getattr(lstm, name)
        steps = given.abs().amax(dim=1, keepdim=True) / 127
        assert not torch.equal(given, rounded)
        assert bool(((given - rounded).abs() <= 0.501 * steps).all())


def test_several_rows_and_gradients_are_torchs() -> None:
    torch.manual_seed(0)
    layer = Int8Lstm(nn.LSTM(6, 8, batch_first=True))
    with torch.inference_mode():
        rows = torch.randn(3, 5, 6)
        torch.testing.assert_close(layer(rows)[0], layer.lstm(rows)[0], rtol=0, atol=0)
    row = torch.randn(1, 5, 6, requires_grad=True)
    layer(row)[0].sum().backward()
    assert row.grad is not None
    assert bool(row.grad.abs().sum() > 0)


def test_the_shipped_model_which_is_stored_so_stays_what_it_is() -> None:
    folder = shipped(DEFAULT_MODEL, "classifier")
    assert folder is not None
    exact = load_classifier_bundle(folder, RunSettings(precision="fp32", device="cpu"))
    rounded = load_classifier_bundle(folder, INT8)
    assert rounded.classifier.device.precision.startswith("int8+")
    expected = exact.predict(TEXTS)
    together, alone = rounded.predict(TEXTS), np.concatenate([rounded.predict([text]) for text in TEXTS])
    np.testing.assert_allclose(together, expected, atol=0.02)
    np.testing.assert_allclose(alone, expected, atol=0.02)


@pytest.mark.parametrize("where", [0, 1, 2], ids=["weight_ih", "weight_hh", "bias_ih"])
def test_what_is_no_number_is_not_lost(where: int) -> None:
    lstm = nn.LSTM(6, 8, batch_first=True)
    with torch.no_grad():
        list(lstm.parameters())[where].view(-1)[0] = torch.nan
    with torch.inference_mode():
        outputs, _ = Int8Lstm(lstm)(torch.ones(1, 5, 6))
    assert bool(outputs[0, -1].isnan().any())


def test_it_is_for_classifiers_on_a_cpu() -> None:
    assert run_settings("int8", "cpu", PredictionSettings).precision == "int8"
    with pytest.raises(UsageError, match=r"^--precision cannot be 'int8': Input should be 'auto', 'fp16', 'bf16' or"):
        run_settings("int8", "cpu")
    with pytest.raises(UsageError, match=r"^--precision is int8, which runs on CPUs only\. Use --device cpu, or"):
        devices._in_int8(Device(torch.device("cuda"), "auto", "fp16"))
