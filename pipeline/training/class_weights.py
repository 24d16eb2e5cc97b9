"""The loss of classifiers whose classes may weigh unequally, and what a batch then weighs in a mean over several.

C classes.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from fastai.losses import CrossEntropyLossFlat
from numpy.typing import NDArray
from torch import Tensor


def cross_entropy(
    class_weights: Literal["none", "balanced"], counts: NDArray[np.int64], device: torch.device, *,
    label_smoothing: float = 0.0,
) -> CrossEntropyLossFlat:
    """Cross entropy; `balanced` weighs each class by the inverse of its number of training documents, `counts` [C]."""
    weight = None
    if class_weights == "balanced":
        weight = torch.tensor(counts.sum() / (len(counts) * np.maximum(counts, 1)), dtype=torch.float32, device=device)
    return CrossEntropyLossFlat(weight=weight, label_smoothing=label_smoothing)


def weight_of(loss: CrossEntropyLossFlat) -> Callable[[Tensor], float] | None:
    """What a batch weighs in a mean over several: the class weights of its documents; None: their number."""
    weights = loss.func.weight
    return None if weights is None else lambda targets: float(weights[targets].sum())
