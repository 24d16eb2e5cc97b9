"""Adversarial training of a classifier: it has to be as sure of embeddings that were moved the way that misleads it.

After Miyato, Dai and Goodfellow 2017 (arXiv:1605.07725), with a distance relative to the document where they normalize
the embeddings. All passes over a batch have the same dropout, so that they differ by the move alone.
B documents, C classes, T tokens of a chunk, D embedding size.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from fastai.learner import Callback
from fastai.text.models.core import SequentialRNN
from torch import Tensor, nn
from torch.nn import functional as F
from torch.random import fork_rng
from torch.utils.hooks import RemovableHandle

from pipeline.model.architecture import PAD_ID
from pipeline.model.weights import classifier_encoder
from pipeline.training.loaders import Batch, ClassifierLoader
from pipeline.training.state import generator_states, restore_generators


@dataclass
class Tap:
    """Stands where the embeddings of a classifier come out, of the chunks that have a gradient: notes, or moves them.

    Where the embedding does not learn there is no gradient to follow, and nothing comes by; chunks that are not pooled
    have none either.
    """

    met: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Ids [B, T] and embeddings [B, T, D] of each chunk of the last pass."""
    moves: list[Tensor] = field(default_factory=list)
    """What is added to the chunks that come, [B, T, D] each."""
    _handle: RemovableHandle | None = None

    def open(self, model: SequentialRNN) -> None:
        """Begin; what was met before is forgotten."""
        self.close()
        self._handle = classifier_encoder(model).encoder_dp.register_forward_hook(self)

    def close(self) -> None:
        """Leave the model as it was."""
        if self._handle is not None:
            self._handle.remove()
        self.met, self.moves = [], []

    def __call__(self, _: nn.Module, inputs: tuple[Tensor], rows_BTD: Tensor) -> Tensor | None:
        """The hook."""
        if not rows_BTD.requires_grad:
            return None
        if self.moves:
            rows_BTD = rows_BTD + self.moves.pop(0)
        rows_BTD.retain_grad()
        self.met.append((inputs[0], rows_BTD))
        return rows_BTD


class AdversarialLoss(Callback):
    """Adds the gradient of the loss on moved embeddings to that of the loss as it is, both with the same weight.

    All embeddings of a document together are moved by `size` times their norm, along the gradient of the loss of
    classes. A step costs twice; with `regularized`, where more than that loss is differentiated, it takes another
    backward pass to tell the gradients apart.
    """

    run_valid = False

    def __init__(self, size: float, *, regularized: bool = False) -> None:
        self.size, self.regularized, self._tap = size, regularized, Tap()
        self._along: tuple[Tensor, ...] | None = None

    def before_batch(self) -> None:
        """Note the embeddings of the batch, and where the random numbers are."""
        self._tap.open(self.model)
        self._numbers = generator_states(self.mixed_precision.device.device)

    def before_backward(self) -> None:
        """The gradient of the loss of classes alone, while its graph is there."""
        rows = [rows for _, rows in self._tap.met]
        if self.regularized and rows:
            scaled = self.mixed_precision.scaler.scale(self.loss)  # of which the length does not matter
            self._along = torch.autograd.grad(scaled, rows, retain_graph=True)

    def after_backward(self) -> None:
        """A second forward and backward pass over the batch, its embeddings moved."""
        met = self._tap.met
        if met:
            gradients = [rows.grad for _, rows in met] if self._along is None else self._along
            self._tap.moves = moves(met, gradients, len(self.xb[0]), self.size)
            self._along = None
            precision = self.mixed_precision
            restore_generators(self._numbers, precision.device.device)
            with precision.device.autocast(), statistics_kept(self.model):
                predicted = self.model(*self.xb)[0]
            loss = self.loss_func(predicted.float(), *self.yb)
            precision.scaler.scale(loss * self.accumulation.share).backward()
        self._tap.close()


class VirtualAdversarialLoss(Callback):
    """Adds how far the classifier changes its mind about texts, labelled or not, whose embeddings are moved.

    After each batch one of `documents` is read: the loss is the divergence (KL) of the prediction for moved embeddings
    from that for the embeddings as they are. They are moved by `size` times their norm along the gradient of that
    divergence at a random move of the same length, which finds the way that changes the prediction most.
    """

    run_valid = False

    def __init__(self, size: float, documents: ClassifierLoader) -> None:
        self.size, self._tap = size, Tap()
        self._documents, self._n_batches = documents, len(documents)
        self._batches: Iterator[Batch] = iter(())
        self._next = 0

    def after_backward(self) -> None:
        """Three forward and two backward passes over a batch of the documents."""
        if not classifier_encoder(self.model).encoder.weight.requires_grad:
            return
        precision = self.mixed_precision
        ids = self._batch(self.train_iter).to(self.xb[0].device)
        devices = [ids.device] if ids.device.type == "cuda" else []
        self._tap.open(self.model)
        with fork_rng(devices), precision.device.autocast():
            certain, met = self._pass(ids)
            at_random = [torch.randn_like(rows) for _, rows in met]
        certain = certain.detach()
        self._tap.moves = moves(met, at_random, len(ids), self.size)
        with fork_rng(devices), precision.device.autocast():
            changed, moved = self._pass(ids)
        scaled = precision.scaler.scale(divergence(certain, changed))  # of which the length does not matter
        gradients = torch.autograd.grad(scaled, [rows for _, rows in moved])
        self._tap.moves = moves(met, gradients, len(ids), self.size)
        with precision.device.autocast():
            changed, _ = self._pass(ids)
        precision.scaler.scale(divergence(certain, changed) * self.accumulation.share).backward()
        self._tap.close()

    def _batch(self, number: int) -> Tensor:
        """Batch `number` of all epochs of the documents, counted from 0 in each phase; in order they cost least."""
        epoch, first = divmod(number, self._n_batches)
        if number != self._next or first == 0:
            self._batches = self._documents.batches(epoch, first)
        self._next = number + 1
        return next(self._batches)[0]

    def _pass(self, ids: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Logits [B, C], and the embeddings of the chunks that have a gradient."""
        self._tap.met = []
        with statistics_kept(self.model):
            return self.model(ids)[0], self._tap.met


@contextlib.contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norm takes the statistics of the batches in this block, and keeps those that evaluation uses: they are to
    be of the labelled documents as they are."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def moves(
    chunks: Sequence[tuple[Tensor, Tensor]], gradients: Sequence[Tensor | None], documents: int, size: float
) -> list[Tensor]:
    """How far to move the embeddings in each chunk: [B, T, D] along the gradients, `size` times a document's norm.

    A chunk is (ids [B, T], embeddings [B, T, D]) of the first B of all documents, its gradient [B, T, D]. Padding
    stays, and so do documents with a gradient that is no number, which would spoil the statistics of batch norm.
    """
    first = chunks[0][1]
    # In float64: squares of small gradients are zero in float32.
    squares_2B = torch.zeros(2, documents, dtype=torch.float64, device=first.device)
    directions = []
    for (ids_BT, rows_BTD), gradient_BTD in zip(chunks, gradients, strict=True):
        assert gradient_BTD is not None
        is_text_BT1 = (ids_BT != PAD_ID)[..., None]  # the embedding of padding is not zero
        directions.append(gradient_BTD.float() * is_text_BT1)
        for squares_B, numbers in zip(squares_2B, (rows_BTD.detach() * is_text_BT1, directions[-1]), strict=True):
            squares_B[: len(ids_BT)] += torch.linalg.vector_norm(numbers, dim=(1, 2), dtype=torch.float64).square()
    norms_B, gradient_norms_B = squares_2B.sqrt()
    factors_B = (size * norms_B / gradient_norms_B.clamp(min=torch.finfo(torch.float64).tiny)).float()
    return [
        (direction * factors_B[: len(direction), None, None]).nan_to_num(0.0, 0.0, 0.0).to(rows.dtype)
        for direction, (_, rows) in zip(directions, chunks, strict=True)
    ]


def divergence(logits_BC: Tensor, other_BC: Tensor) -> Tensor:
    """Mean KL divergence in nats of the prediction `other_BC` from `logits_BC`."""
    told, other = (F.log_softmax(logits.float(), dim=1) for logits in (logits_BC, other_BC))
    return F.kl_div(other, told, reduction="batchmean", log_target=True)
