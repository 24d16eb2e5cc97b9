"""Cross-entropy of a decoder's predictions without a float32 copy of the logits.

Shapes: N tokens, V vocabulary rows, D features.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

_ROW_BLOCK_ELEMENTS = 2**21
"""Logits worked on at a time in float32: 8 MB, and as much for their probabilities, stay in the processor's cache."""


class DecoderLoss(nn.Module):
    """`cross_entropy` of `decoder`'s predictions."""

    def __init__(self, decoder: nn.Linear) -> None:
        super().__init__()
        self.decoder = decoder
        self.hits = torch.zeros((), dtype=torch.int64)
        """Tokens of the last batch whose most likely prediction is right; counted outside training only."""
        self.tokens = 0
        """Tokens of that batch."""
        self.logits_dtype: torch.dtype | None = None
        """Type of the logits of the last batch."""

    def forward(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """`hidden`: [..., D], `targets`: ids of the same leading shape."""
        rows, ids = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        self.logits_dtype = _product_dtype(hidden)
        if torch.is_grad_enabled():
            return cross_entropy(rows, self.decoder.weight, self.decoder.bias, ids)
        self.tokens = len(ids)
        total, self.hits = _evaluate(rows, self.decoder.weight, self.decoder.bias, ids)
        return total / len(ids)


def cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of the predictions hidden [N, D] @ weight.T [D, V] + bias [V]; 0 if N is 0.

    The logits are computed in the type of autocast, or that of `hidden`. The gradient is computed together with the
    loss and takes their place: softmax minus target, the same as F.cross_entropy gives on float32 copies of them.
    """
    loss: Tensor = _Loss.apply(hidden, weight, bias, targets)
    return loss


def _product_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


class _Loss(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        types, dtype = (hidden.dtype, weight.dtype, bias.dtype), _product_dtype(hidden)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        logits = F.linear(hidden, weight, bias.to(dtype))
        for_hidden, for_weight, for_bias, _ = ctx.needs_input_grad
        total = torch.zeros((), device=hidden.device)
        # Summed while a block is in the cache: a sum of all logits would copy them to float32 first, an eighth of a
        # small model's step.
        column_sums = torch.zeros(len(weight), device=hidden.device)
        for block, probabilities, index in _blocks(logits, targets):
            chosen = probabilities.gather(1, index)
            total -= _log(chosen).sum()
            gradient = probabilities.scatter_(1, index, chosen - 1)
            if for_bias:
                column_sums += gradient.sum(0)
            block.copy_(gradient)
        # Not saved as autograd does it, so that backward may scale them in place. The mean's divisor waits for it too:
        # divided before the products, float16 gradients would be lost.
        ctx.sums = (
            (logits @ weight).float() if for_hidden else None,
            (logits.T @ hidden).float() if for_weight else None,
            column_sums if for_bias else None,
        )
        ctx.types, ctx.n = types, max(1, len(targets))
        return total / ctx.n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        sums, ctx.sums = ctx.sums, None
        factor = gradients[0] / ctx.n
        found = (
            None if each is None else each.mul_(factor).to(dtype) for each, dtype in zip(sums, ctx.types, strict=True)
        )
        return *found, None


def _evaluate(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy, and the number of targets that are the most likely token."""
    dtype = _product_dtype(hidden)
    logits = F.linear(hidden.to(dtype), weight.to(dtype), bias.to(dtype))
    total = torch.zeros((), device=hidden.device)
    hits = torch.zeros((), dtype=torch.int64, device=hidden.device)
    for block, probabilities, index in _blocks(logits, targets):
        total -= _log(probabilities.gather(1, index)).sum()
        hits += (block.argmax(-1, keepdim=True) == index).sum()
    return total, hits


def _blocks(logits: Tensor, targets: Tensor) -> Any:
    """Rows of `logits`, their probabilities in float32 (one buffer for all), and their targets as a column."""
    n = max(1, _ROW_BLOCK_ELEMENTS // logits.shape[1])
    exact = torch.empty((n, logits.shape[1]), device=logits.device)
    probabilities = torch.empty_like(exact)
    for block, index in zip(torch.split(logits, n), torch.split(targets[:, None], n), strict=True):
        m = len(block)
        yield block, torch.softmax(exact[:m].copy_(block), -1, out=probabilities[:m]), index


def _log(probabilities: Tensor) -> Tensor:
    """Logarithm that stays finite where a probability is too small for float32 (a loss above 87 nats)."""
    return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
