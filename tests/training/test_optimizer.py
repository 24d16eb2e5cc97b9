"""The fused optimizer against fastai's Adam."""

import numpy as np
import torch
from fastai.optimizer import Adam
from torch import Tensor, nn

from pipeline.training.optimizer import fused_adam


def train(make: object, steps: int) -> tuple[list[Tensor], dict[str, object]]:
    """Parameters and optimizer state after `steps` with changing hyperparameters, two groups and a frozen start."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    optimizer = make([list(model[0].parameters()), list(model[2].parameters())], lr=1e-2, wd=0.1)  # type: ignore[operator]
    optimizer.state[model[2].bias]["do_wd"] = False
    optimizer.freeze_to(1)
    for i in range(steps):
        if i == 3:
            optimizer.unfreeze()
        optimizer.set_hypers(lr=[1e-3 * (i + 1), 1e-2], mom=0.95 - 0.02 * i, sqr_mom=0.9)
        loss = model(torch.randn(4, 5)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return list(model.parameters()), optimizer.state_dict()


def test_steps_are_those_of_fastais_adam() -> None:
    (ours, state), (theirs, their_state) = train(fused_adam, 12), train(Adam, 12)
    for mine, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.detach(), wanted.detach(), rtol=2e-5, atol=1e-7)
    assert state["hypers"] == their_state["hypers"]
    for mine, wanted in zip(state["state"], their_state["state"], strict=True):  # type: ignore[call-overload]
        assert mine.keys() == wanted.keys()
        assert mine["step"] == wanted["step"]
        np.testing.assert_allclose(mine["sqr_avg"], wanted["sqr_avg"], rtol=1e-5)
