"""Adversarial training: the documents moved as far as said, the gradient of both losses, exact resume."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from documents import counting_documents
from fastai.learner import Callback
from tiny_training import ARCHITECTURE, CLASSIFIER, StopAt, same, train
from torch import Tensor, nn

from pipeline import stopping
from pipeline.errors import Stopped, UsageError
from pipeline.model.architecture import PAD_ID, HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.model.weights import classifier_encoder
from pipeline.stages.train_classifier import _check_adversarial
from pipeline.training.adversarial import AdversarialLoss, VirtualAdversarialLoss, divergence, moves
from pipeline.training.loaders import ClassifierLoader
from pipeline.training_settings import Phase, TrainClassifierSettings


@pytest.fixture(autouse=True)
def _no_request_left() -> Iterator[None]:
    yield
    stopping.forget()


def test_each_document_moves_along_its_gradient_by_a_share_of_its_norm() -> None:
    """Two documents, of which the second begins in the second chunk, with padding in front."""
    torch.manual_seed(0)
    ids = torch.tensor([[5, 6, 7, 8], [PAD_ID, PAD_ID, PAD_ID, 9]])
    rows = torch.randn(2, 4, 3)
    gradients = torch.randn(2, 4, 3)
    parts = [slice(0, 2), slice(2, 4)]
    chunks = [(ids[:n, part], rows[:n, part]) for n, part in zip((1, 2), parts, strict=True)]
    first, second = moves(chunks, [gradients[:1, :2], gradients[:, 2:]], 2, 0.1)
    assert first.shape == (1, 2, 3)
    assert second.shape == (2, 2, 3)
    moved = [torch.cat([first[0], second[0]]), second[1]]
    along = [gradients[0], gradients[1, 2:] * (ids[1, 2:] != PAD_ID)[:, None]]
    for move, gradient, document in zip(moved, along, (rows[0], rows[1, 3:]), strict=True):
        torch.testing.assert_close(move, 0.1 * document.norm() * gradient / gradient.norm())


@pytest.mark.parametrize("size", [1e-42, 1e-25, 1e25])
def test_the_size_of_a_gradient_does_not_matter(size: float) -> None:
    torch.manual_seed(0)
    chunk, gradient = (torch.full((2, 3), 5), torch.randn(2, 3, 3)), torch.randn(2, 3, 3)
    (expected,), (move,) = (moves([chunk], [gradients], 2, 0.1) for gradients in (gradient, gradient * size))
    if size == 1e-42:  # of which a float32 keeps two digits; such a document may stay as well
        assert float(move.norm()) <= 1.01 * float(expected.norm())
    else:
        torch.testing.assert_close(move, expected)


@pytest.mark.parametrize("name", ["adversarial", "virtual_adversarial"])
def test_phases_that_do_not_train_the_embedding_are_refused(name: str) -> None:
    frozen, whole = Phase(name="frozen", lr=1e-2, train_last=3), Phase(name="whole", lr=1e-2)
    for phases in ((frozen, whole), (frozen.model_copy(update={"train_last": 4}),)):
        _check_adversarial(CLASSIFIER.model_copy(update={name: 0.1, "phases": phases}), 4)
    settings = CLASSIFIER.model_copy(update={name: 0.1, "phases": (frozen,)})
    with pytest.raises(UsageError, match=rf"train_classifier\.{name} moves embeddings, .* none of the phases does"):
        _check_adversarial(settings, 4)


@pytest.mark.parametrize("gradient", [0.0, torch.inf, torch.nan])
def test_a_document_stays_whose_gradient_has_no_direction(gradient: float) -> None:
    gradients = torch.ones(2, 3, 3)
    gradients[1, 0, 0] = gradient
    gradients[1, 1:] = 0.0
    gradients[1, 0, 1:] = 0.0
    (move,) = moves([(torch.full((2, 3), 5), torch.ones(2, 3, 3))], [gradients], 2, 0.1)
    assert (move[0] > 0).all()
    assert (move[1] == 0).all()


class FirstStep(Callback):
    """Ends the training in front of the first step of the optimizer, and notes what it would have stepped along."""

    order = 1000
    run_valid = False
    gradients: dict[str, Tensor]

    def before_step(self) -> None:
        self.gradients = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
        self.weights = {n: t.clone() for n, t in self.model.state_dict().items()}
        raise Stopped("a test", "Go on.")


def first_step(folder: Path, settings: TrainClassifierSettings, *callbacks: Callback) -> FirstStep:
    step = FirstStep()
    with pytest.raises(Stopped):
        train(folder, settings, (*callbacks, step))
    return step


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
    batches: list[Any] = []

    class Batches(Callback):
        def before_batch(self) -> None:
            batches.append((*self.xb, *self.yb))

    step = first_step(tmp_path, settings, AdversarialLoss(0.05), Batches())
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
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits_of(model, ids, rows), labels), rows)
            move = along(gradient, ids, rows, 0.05)
            losses = [
                F.cross_entropy(logits_of(model, ids, encoder.encoder(ids) + delta), labels) for delta in (0, move)
            ]
            assert losses[1] > losses[0]
            for name, found in gradients_of(model, *losses).items():
                expected[name] = expected.get(name, 0) + found / accumulate
    finally:
        torch.set_default_dtype(torch.float32)
    assert set(step.gradients) == set(expected)
    for name, gradient in step.gradients.items():
        torch.testing.assert_close(gradient.double(), expected[name], rtol=1e-3, atol=1e-5)


def logits_of(model: Any, ids: Tensor, rows: Tensor) -> Tensor:
    """What the classifier says to a batch of one chunk with these embeddings."""
    model.reset()
    logits: Tensor = model[1]((classifier_encoder(model)(rows, from_embeds=True), ids == PAD_ID))[0]
    return logits


def along(direction: Tensor, ids: Tensor, rows: Tensor, size: float) -> Tensor:
    """`size` times the norm of each document, along `direction`."""
    rows, direction = (numbers * (ids != PAD_ID)[..., None] for numbers in (rows, direction))
    norms, lengths = (t.detach().flatten(1).norm(dim=1)[:, None, None] for t in (rows, direction))
    return size * direction * (norms / lengths)


def test_both_passes_have_the_same_dropout(tmp_path: Path) -> None:
    """Without a move the second gradient is the first one again."""
    settings = CLASSIFIER.model_copy(update={"alpha": 0.0, "beta": 0.0, "phases": (Phase(name="all", lr=1e-2),)})
    twice = first_step(tmp_path / "twice", settings, AdversarialLoss(0.0))
    once = first_step(tmp_path / "once", settings)
    for name, gradient in once.gradients.items():
        torch.testing.assert_close(twice.gradients[name], 2 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("more", [{"alpha": 2.0, "beta": 1.0}, {"alpha": 0.0, "beta": 0.0}])
def test_the_move_follows_the_loss_of_classes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, float]
) -> None:
    class Asked(Callback):
        order = -1

        def before_backward(self) -> None:
            rows = [rows for _, rows in self.adversarial_loss._tap.met]
            self.along = torch.autograd.grad(self.loss, rows, retain_graph=True)
            self.ids = [ids for ids, _ in self.adversarial_loss._tap.met]

    class Moved(Callback):
        order = 1

        def after_backward(self) -> None:
            raise Stopped("a test", "Go on.")

    settings = CLASSIFIER.model_copy(update={**more, "phases": (Phase(name="all", lr=1e-2),)})
    asked, found = Asked(), list[list[Tensor]]()
    loss = AdversarialLoss(0.05, regularized=any(more.values()))

    def noted(chunks: Any, gradients: Any, documents: int, size: float) -> list[Tensor]:
        found.append([gradient.clone() for gradient in gradients])
        return moves(chunks, gradients, documents, size)

    monkeypatch.setattr("pipeline.training.adversarial.moves", noted)
    with pytest.raises(Stopped):
        train(tmp_path, settings, (asked, loss, Moved()))
    for expected, gradient, ids in zip(asked.along, found[0], asked.ids, strict=True):
        text = (ids != PAD_ID)[..., None]
        directions = (F.normalize((numbers * text).flatten(1)) for numbers in (gradient, expected))
        torch.testing.assert_close(*directions, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: AdversarialLoss(0.05), lambda: VirtualAdversarialLoss(0.05, texts())])
def test_what_evaluation_uses_of_batch_norm_is_of_the_documents_as_they_are(tmp_path: Path, make: Any) -> None:
    """After the first step, with and without: the weights before it are the same, and so are the statistics."""

    class Statistics(Callback):
        order = 1000
        run_valid = False

        def before_step(self) -> None:
            norms = [part for part in self.model.modules() if isinstance(part, nn.BatchNorm1d)]
            self.found = [t.clone() for norm in norms for t in norm.buffers()]
            raise Stopped("a test", "Go on.")

    found = []
    for name, callbacks in (("with", (make(),)), ("without", ())):
        statistics = Statistics()
        with pytest.raises(Stopped):
            train(tmp_path / name, CLASSIFIER, (*callbacks, statistics))
        found.append(statistics.found)
    assert len(found[0]) > 0
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("make", [lambda: AdversarialLoss(0.05), lambda: VirtualAdversarialLoss(0.05, texts())])
def test_the_model_is_left_without_a_trace(tmp_path: Path, make: Any) -> None:
    class Hooks(Callback):
        def before_step(self) -> None:
            self.seen = len(classifier_encoder(self.model).encoder_dp._forward_hooks)

    hooks = Hooks()
    train(tmp_path, CLASSIFIER, (make(), hooks))
    assert hooks.seen == 0


def test_chunks_that_are_not_pooled_stay(tmp_path: Path) -> None:
    """Documents of up to three chunks, of which the last alone is pooled."""

    class Met(Callback):
        run_valid = False

        def before_fit(self) -> None:
            self.tokens: list[int] = []

        def before_backward(self) -> None:
            self.tokens += [ids.shape[1] for ids, _ in self.adversarial_loss._tap.met]

    met = Met()
    settings = CLASSIFIER.model_copy(update={"max_len": 20, "phases": (Phase(name="all", lr=1e-2),)})
    moved = train(tmp_path / "moved", settings, (AdversarialLoss(0.05), met))
    assert len(met.tokens) == 5  # one chunk in each batch
    assert not same(moved, train(tmp_path / "not", settings))


def texts() -> ClassifierLoader:
    """Documents without labels, of three chunks each."""
    labels = np.zeros(10, np.int32)
    return ClassifierLoader(counting_documents(10, 45), np.arange(10), labels, bs=4, seq_len=20, seed=5)


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    torch.manual_seed(0)
    told, other = torch.randn(3, 4), torch.randn(3, 4)
    p, q = told.softmax(1), other.softmax(1)
    torch.testing.assert_close(divergence(told, other), (p * (p / q).log()).sum(1).mean())
    assert divergence(told, told) == 0


def test_virtual_gradient_is_that_of_the_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the divergence by hand, in float64, without dropout; the first move goes along ones."""
    settings = CLASSIFIER.model_copy(update={
        "drop_mult": 0.0, "head_p": 0.0, "alpha": 0.0, "beta": 0.0, "phases": (Phase(name="all", lr=1e-2),),
    })
    loader = ClassifierLoader(
        counting_documents(10, 20), np.arange(10), np.zeros(10, np.int32), bs=10, seq_len=60, seed=5
    )
    monkeypatch.setattr("pipeline.training.adversarial.torch.randn_like", torch.ones_like)
    with_it = first_step(tmp_path / "with", settings, VirtualAdversarialLoss(0.5, loader))
    without = first_step(tmp_path / "without", settings)
    ((ids, _),) = list(loader)
    torch.set_default_dtype(torch.float64)
    try:
        model = build_classifier(ARCHITECTURE, HeadShape.from_settings(settings, 2), settings)
        model.load_state_dict(without.weights)
        encoder = classifier_encoder(model)

        rows = encoder.encoder(ids)
        certain, ones = logits_of(model, ids, rows).detach(), torch.ones_like(rows)
        moved = (rows + along(ones, ids, rows, 0.5)).detach().requires_grad_()
        (direction,) = torch.autograd.grad(divergence(certain, logits_of(model, ids, moved)), moved)
        at_random, misled = (
            divergence(certain, logits_of(model, ids, rows + along(d, ids, rows, 0.5))) for d in (ones, direction)
        )
        assert misled > 2 * at_random
        expected = gradients_of(model, misled)
    finally:
        torch.set_default_dtype(torch.float32)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        added = (with_it.gradients[name] - without.gradients[name]).double()
        torch.testing.assert_close(added, gradient, rtol=1e-2, atol=1e-3 * largest)


def test_texts_are_read_one_batch_after_the_other_epoch_by_epoch() -> None:
    loader = texts()
    callback = VirtualAdversarialLoss(0.05, loader)
    in_order = [x for epoch in range(3) for x, _ in loader.batches(epoch)]
    for number in (0, 1, 2, 3, 4, 7, 5, 6, 2):
        assert torch.equal(callback._batch(number), in_order[number])


@pytest.mark.parametrize("make", [lambda: AdversarialLoss(0.05), lambda: VirtualAdversarialLoss(0.05, texts())])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_resumes_exactly(tmp_path: Path, precision: str, make: Any) -> None:
    unbroken = train(tmp_path / "unbroken", CLASSIFIER, (make(),), precision)
    assert not same(unbroken, train(tmp_path / "without", CLASSIFIER, precision=precision))
    for moment in (9, 13):
        with pytest.raises(Stopped):
            train(tmp_path / str(moment), CLASSIFIER, (make(), StopAt(moment)), precision)
        stopping.forget()
        again = train(tmp_path / str(moment), CLASSIFIER, (make(),), precision)
        assert same(again, unbroken), f"stopped at batch {moment}"
