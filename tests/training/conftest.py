"""What tests of training share."""

import pytest
import torch
from torch import Tensor

from pipeline.model import awd_lstm


@pytest.fixture
def fastais_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight dropout draws the numbers that fastai's draws, so that a training can be compared with fastai's."""

    def kept(weights: Tensor, p: float) -> Tensor:
        return torch.empty_like(weights).bernoulli_(1 - p).to(torch.bool)

    monkeypatch.setattr(awd_lstm, "_kept", kept)
