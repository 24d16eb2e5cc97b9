"""Adversarial training: the documents moved as far as said, the gradient of both losses, exact resume."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastai.learner import Callback
from tiny_training import ARCHITECTURE, CLASSIFIER, StopAt, same, train
from torch import Tensor, nn

from pipeline import stopping
from pipeline.errors import Stopped
from pipeline.model.architecture import PAD_ID, HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.model.weights import classifier_encoder
from pipeline.training.adversarial import AdversarialLoss, moves
from pipeline.training_settings import Phase


@pytest.fixture(autouse=True)
def _no_request_left() -> Iterator[None]:
    yield
    stopping.forget()


def test_each_document_moves_along_its_gradient_by_a_share_of_its_norm() -> None:
    """Two documents, of which the second begins in the second chunk, with padding in front."""
    torch.manual_seed(0)
    ids = torch.tensor([[5, 6, 7, 8], [PAD_ID, PAD_ID, PAD_ID, 9]])
    rows = torch.randn(2, 4, 3) * (ids != PAD_ID)[..., None]
    gradients = torch.randn(2, 4, 3)
    parts = [slice(0, 2), slice(2, 4)]
    chunks = [chunk(ids[:n, part], rows[:n, part], gradients[:n, part]) for n, part in zip((1, 2), parts, strict=True)]
    first, second = moves(chunks, 2, 0.1)
    assert first.shape == (1, 2, 3)
    assert second.shape == (2, 2, 3)
    moved = [torch.cat([first[0], second[0]]), second[1]]
    along = [gradients[0], gradients[1, 2:] * (ids[1, 2:] != PAD_ID)[:, None]]
    for move, gradient, document in zip(moved, along, (rows[0], rows[1]), strict=True):
        torch.testing.assert_close(move, 0.1 * document.norm() * gradient / gradient.norm())


def chunk(ids: Tensor, rows: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    leaf = rows.clone().requires_grad_()
    leaf.grad = gradients.clone()
    return ids, leaf


@pytest.mark.parametrize("gradient", [0.0, torch.inf, torch.nan])
def test_a_document_stays_whose_gradient_has_no_direction(gradient: float) -> None:
    gradients = torch.ones(2, 3, 3)
    gradients[1, 0, 0] = gradient
    gradients[1, 1:] = 0.0
    gradients[1, 0, 1:] = 0.0
    (move,) = moves([chunk(torch.full((2, 3), 5), torch.ones(2, 3, 3), gradients)], 2, 0.1)
    assert (move[0] > 0).all()
    assert (move[1] == 0).all()


class FirstStep(Callback):
    """Ends the training in front of the first step of the optimizer, and notes what it would have stepped along."""

    order = 1000
    run_valid = False
    gradients: dict[str, Tensor]

    def before_step(self) -> None:
        self.gradients = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
        self.batch = (*self.xb, *self.yb)
        self.weights = {n: t.clone() for n, t in self.model.state_dict().items()}
        raise Stopped("a test", "Go on.")


def gradients_of(model: nn.Module, *losses: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    sum(losses).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_gradient_is_that_of_both_losses(tmp_path: Path, accumulate: int) -> None:
    """Against the losses of moved embeddings that go through the layers by hand, in float64, without dropout."""
    settings = CLASSIFIER.model_copy(update={
        "drop_mult": 0.0, "head_p": 0.0, "alpha": 0.0, "beta": 0.0, "accumulate": accumulate, "bs": 18 // accumulate,
        "seq_len": 60, "phases": (Phase(name="all", lr=1e-2),),
    })
    step = FirstStep()
    batches: list[Any] = []

    class Batches(Callback):
        def before_batch(self) -> None:
            batches.append((*self.xb, *self.yb))

    with pytest.raises(Stopped):
        train(tmp_path, settings, (AdversarialLoss(0.05), Batches(), step))
    torch.set_default_dtype(torch.float64)
    try:
        model = build_classifier(ARCHITECTURE, HeadShape.from_settings(settings, 2), settings)
        model.load_state_dict(step.weights)
        model.train()
        encoder = classifier_encoder(model)
        expected: dict[str, Tensor] = {}
        assert len(batches) == accumulate
        for ids, labels in batches:
            rows = encoder.encoder(ids).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss_of(model, ids, rows, labels), rows)
            gradient = gradient * (ids != PAD_ID)[..., None]
            norms, gradient_norms = (t.flatten(1).norm(dim=1)[:, None, None] for t in (rows.detach(), gradient))
            move = 0.05 * norms * gradient / gradient_norms
            losses = [loss_of(model, ids, encoder.encoder(ids) + delta, labels) for delta in (0, move)]
            assert losses[1] > losses[0]
            for name, found in gradients_of(model, *losses).items():
                expected[name] = expected.get(name, 0) + found / accumulate
    finally:
        torch.set_default_dtype(torch.float32)
    assert set(step.gradients) == set(expected)
    for name, gradient in step.gradients.items():
        torch.testing.assert_close(gradient.double(), expected[name], rtol=1e-3, atol=1e-5)


def loss_of(model: Any, ids: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch of one chunk with these embeddings."""
    model.reset()
    outputs = classifier_encoder(model)(rows, from_embeds=True)
    return F.cross_entropy(model[1]((outputs, ids == PAD_ID))[0], labels)


def test_the_model_is_left_without_a_trace(tmp_path: Path) -> None:
    class Hooks(Callback):
        def after_fit(self) -> None:
            self.seen = len(classifier_encoder(self.model).encoder_dp._forward_hooks)

    hooks = Hooks()
    train(tmp_path, CLASSIFIER, (AdversarialLoss(0.05), hooks))
    assert hooks.seen == 0


def test_chunks_that_are_not_pooled_stay(tmp_path: Path) -> None:
    """Documents of up to three chunks, of which the last alone is pooled."""

    class Met(Callback):
        run_valid = False

        def before_fit(self) -> None:
            self.tokens: list[int] = []

        def after_backward(self) -> None:
            self.tokens += [ids.shape[1] for ids, _ in self.adversarial_loss._met]

    met = Met()
    settings = CLASSIFIER.model_copy(update={"max_len": 20, "phases": (Phase(name="all", lr=1e-2),)})
    moved = train(tmp_path / "moved", settings, (AdversarialLoss(0.05), met))
    assert len(met.tokens) == 5  # one chunk in each batch
    assert not same(moved, train(tmp_path / "not", settings))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_resumes_exactly(tmp_path: Path, precision: str) -> None:
    unbroken = train(tmp_path / "unbroken", CLASSIFIER, (AdversarialLoss(0.05),), precision)
    assert not same(unbroken, train(tmp_path / "without", CLASSIFIER, precision=precision))
    for moment in (3, 9, 13, 16):
        with pytest.raises(Stopped):
            train(tmp_path / str(moment), CLASSIFIER, (AdversarialLoss(0.05), StopAt(moment)), precision)
        stopping.forget()
        again = train(tmp_path / str(moment), CLASSIFIER, (AdversarialLoss(0.05),), precision)
        assert same(again, unbroken), f"stopped at batch {moment}"
