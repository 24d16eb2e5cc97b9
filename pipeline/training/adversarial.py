"""Adversarial training of a classifier: it also has to be right about embeddings moved the way that misleads it most.

After Miyato, Dai and Goodfellow 2017 (arXiv:1605.07725), with a distance relative to the document where they normalize
the embeddings. B documents, T tokens of a chunk, D embedding size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from fastai.learner import Callback
from torch import Tensor

from pipeline.model.architecture import PAD_ID
from pipeline.model.weights import classifier_encoder


class AdversarialLoss(Callback):
    """Adds the gradient of the loss on moved embeddings to that of the loss as it is, both with the same weight.

    All embeddings of a document together are moved by `size` times their norm, along the gradient of the loss. Dropout
    is drawn anew. Each step costs twice; where the embedding does not learn there is no gradient to follow, and
    nothing is added. Chunks that are not pooled stay where they are.
    """

    run_valid = False

    def __init__(self, size: float) -> None:
        self.size = size
        self._moves: list[Tensor] | None = None
        """How far to move the embeddings of each chunk; None while they are met where they are."""

    def before_fit(self) -> None:
        """Stand where the embeddings come out."""
        self._hook = classifier_encoder(self.model).encoder_dp.register_forward_hook(self._meet)

    def before_batch(self) -> None:
        """Forget the embeddings of the batch before."""
        self._met: list[tuple[Tensor, Tensor]] = []

    def after_backward(self) -> None:
        """A second forward and backward pass over the batch, its embeddings moved."""
        if not self._met:
            return
        self._moves = moves(self._met, len(self.xb[0]), self.size)
        precision = self.mixed_precision
        with precision.device.autocast():
            predicted = self.model(*self.xb)[0]
        self._moves = None
        loss = self.loss_func(predicted.float(), *self.yb)
        precision.scaler.scale(loss * self.accumulation.share).backward()

    def after_fit(self) -> None:
        """Leave the model as it was."""
        self._hook.remove()

    def _meet(self, _: Any, inputs: tuple[Tensor], rows_BTD: Tensor) -> Tensor | None:
        if not rows_BTD.requires_grad:
            return None
        if self._moves is not None:
            return rows_BTD + self._moves.pop(0)
        rows_BTD.retain_grad()
        self._met.append((inputs[0], rows_BTD))
        return None


def moves(chunks: Sequence[tuple[Tensor, Tensor]], documents: int, size: float) -> list[Tensor]:
    """How far to move the embeddings in each chunk: [B, T, D] along the gradient, `size` times a document's norm.

    A chunk is (ids [B, T], embeddings [B, T, D] with their gradients) of the first B of all documents. Padding stays,
    and so do documents with a gradient that is no number, which would spoil the statistics of batch norm.
    """
    first = chunks[0][1]
    squares_2B = torch.zeros(2, documents, device=first.device)
    directions = []
    for ids_BT, rows_BTD in chunks:
        assert rows_BTD.grad is not None
        directions.append(rows_BTD.grad.float() * (ids_BT != PAD_ID)[..., None])
        for squares_B, numbers in zip(squares_2B, (rows_BTD.detach().float(), directions[-1]), strict=True):
            squares_B[: len(ids_BT)] += numbers.square().sum((1, 2))
    norms_B, gradient_norms_B = squares_2B.sqrt()
    factors_B = size * norms_B / gradient_norms_B.clamp(min=torch.finfo(torch.float32).tiny)
    return [
        (direction * factors_B[: len(direction), None, None]).nan_to_num(0.0, 0.0, 0.0).to(rows.dtype)
        for direction, (_, rows) in zip(directions, chunks, strict=True)
    ]
