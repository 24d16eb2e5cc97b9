"""fastai's Adam with torch's fused kernel: one pass over each parameter instead of eight."""

from typing import Any

import torch
from fastai.optimizer import Optimizer
from torch import Tensor
from torch.optim.adamw import adamw


def fused_adam(params: Any, **hypers: float) -> Optimizer:
    """Adam with decoupled weight decay and fastai's defaults, groups, hyperparameters and state."""
    return Optimizer(params, [_step], **{"mom": 0.9, "sqr_mom": 0.99, "eps": 1e-5, "wd": 0.01, **hypers})


@torch.no_grad()
def _step(
    p: Tensor, *, lr: float, mom: float, sqr_mom: float, eps: float, wd: float, do_wd: bool = True, step: int = 0,
    grad_avg: Tensor | None = None, sqr_avg: Tensor | None = None, **_: Any,
) -> dict[str, Any]:
    """One step of one parameter; returns its new state."""
    assert p.grad is not None
    grad_avg = torch.zeros_like(p) if grad_avg is None else grad_avg
    sqr_avg = torch.zeros_like(p) if sqr_avg is None else sqr_avg
    adamw(
        [p], [p.grad], [grad_avg], [sqr_avg], [], [torch.full((), float(step), device=p.device)], fused=True,
        amsgrad=False, beta1=mom, beta2=sqr_mom, lr=lr, weight_decay=wd if do_wd else 0.0, eps=eps, maximize=False,
    )
    return {"grad_avg": grad_avg, "sqr_avg": sqr_avg, "step": step + 1}
