"""The decoder's loss against cross-entropy on full logits: values, gradients, types and what it keeps in memory."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.model import decoder_loss
from pipeline.model.decoder_loss import DecoderLoss

V, D = 300, 24


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows at a time, so that every batch here has several blocks and a short last one."""
    monkeypatch.setattr(decoder_loss, "_ROW_BLOCK_ELEMENTS", 7 * V + 5)


def decoder(scale: float = 1.0) -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(D, V)
    with torch.no_grad():
        linear.weight.mul_(scale)
    return linear


def batch(rows: int = 3, steps: int = 11) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(rows, steps, D, generator=generator)
    return hidden.requires_grad_(), torch.randint(V, (rows, steps), generator=generator)


def gradients(loss: Tensor, hidden: Tensor, linear: nn.Linear) -> list[Tensor]:
    return list(torch.autograd.grad(3 * loss, [hidden, linear.weight, linear.bias]))


def reference(linear: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(linear(hidden).float().flatten(0, -2), targets.flatten())


def test_loss_and_gradients_are_those_of_cross_entropy() -> None:
    linear, (hidden, targets) = decoder(), batch()
    ours, theirs = DecoderLoss(linear)(hidden, targets), reference(linear, hidden, targets)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    for mine, wanted in zip(gradients(ours, hidden, linear), gradients(theirs, hidden, linear), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-7)


def test_a_tied_weight_gets_both_gradients() -> None:
    linear, (_, targets) = decoder(), batch()
    words = torch.arange(33).view(3, 11)
    found = []
    for loss in (DecoderLoss(linear), lambda hidden, targets: reference(linear, hidden, targets)):
        value = loss(F.embedding(words, linear.weight), targets)
        found.append(torch.autograd.grad(value, linear.weight)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_as_near_to_float32_as_autocast_itself(dtype: torch.dtype) -> None:
    linear, (hidden, targets) = decoder(), batch()
    exact = [F.cross_entropy(linear(hidden).flatten(0, 1), targets.flatten())]
    exact += gradients(exact[0], hidden, linear)
    found = []
    for loss in (DecoderLoss(linear), lambda hidden, targets: reference(linear, hidden, targets)):
        with torch.autocast("cpu", dtype):
            value = loss(hidden, targets)
        assert value.dtype == torch.float32
        grads = gradients(value, hidden, linear)
        assert all(grad.dtype == torch.float32 for grad in grads)
        found.append([float((a - b).detach().norm() / b.detach().norm())
                      for a, b in zip([value, *grads], exact, strict=True)])
    for ours, autocast in zip(*found, strict=True):
        assert ours <= 1.1 * autocast + 1e-6


def test_small_float16_gradients_are_not_lost() -> None:
    """Divided by the number of tokens before the products, most of them would be below float16's smallest number."""
    linear = decoder()
    hidden, targets = torch.randn(20_000, D, requires_grad=True), torch.randint(V, (20_000,))
    with torch.autocast("cpu", torch.float16):
        value = DecoderLoss(linear)(hidden, targets)
    wanted = torch.autograd.grad(reference(linear, hidden, targets), hidden)[0]
    torch.testing.assert_close(torch.autograd.grad(value, hidden)[0], wanted, rtol=0.02, atol=1e-7)


def test_without_gradients_the_loss_is_the_same_and_hits_are_counted() -> None:
    linear, (hidden, targets) = decoder(), batch()
    loss = DecoderLoss(linear)
    with torch.no_grad():
        logits = linear(hidden)
        targets[0] = logits.argmax(-1)[0]
        assert torch.equal(loss(hidden, targets), loss(hidden, targets))
        torch.testing.assert_close(loss(hidden, targets), reference(linear, hidden, targets), rtol=1e-6, atol=0)
    assert int(loss.hits) == int((logits.argmax(-1) == targets).sum()) >= 11


def test_a_certain_mistake_costs_a_finite_loss_and_infinity_is_not_hidden() -> None:
    linear, (hidden, targets) = decoder(scale=1e4), batch()
    value = DecoderLoss(linear)(hidden, targets)
    assert 50 < float(value.detach()) < 88
    grad = torch.autograd.grad(value, hidden)[0]
    assert grad.isfinite().all()
    assert grad.abs().max() > 0
    with torch.no_grad():
        linear.weight[0, 0] = torch.inf
    assert not DecoderLoss(linear)(hidden, targets).isfinite()


class Float32Sizes(TorchDispatchMode):
    """The most elements of any float32 tensor that comes out of an operation, and all reads of a value by Python."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.reads = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float32:
                self.largest = max(self.largest, tensor.numel())
        self.reads += "local_scalar" in str(func)
        return result


@pytest.mark.parametrize("train", [True, False])
def test_no_float32_logits_are_made_and_nothing_waits_for_the_device(train: bool) -> None:
    linear, (hidden, targets) = decoder(), batch(16, 40)
    with Float32Sizes() as seen, torch.set_grad_enabled(train), torch.autocast("cpu", torch.bfloat16):
        value = DecoderLoss(linear)(hidden, targets)
        if train:
            gradients(value, hidden, linear)
    assert seen.largest == max(hidden.numel(), linear.weight.numel() * train)
    assert seen.largest < targets.numel() * V / 10
    assert seen.reads == 0
