"""The auxiliary language-model loss: the value a language model would give, no padding, exact resume."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from documents import random_documents
from fastai.learner import Callback
from tiny_training import ARCHITECTURE, CLASSIFIER, StopAt, same, train
from torch import Tensor

from pipeline import stopping
from pipeline.errors import Stopped
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier, build_language_model
from pipeline.model.weights import classifier_encoder, encoder_tensors
from pipeline.training.auxiliary_loss import LanguageModelLoss, next_token_loss
from pipeline.training.loaders import ClassifierLoader
from pipeline.training_settings import Phase

SHAPE = Architecture(vocabulary_size=40, emb_sz=6, n_hid=8, n_layers=2)


@pytest.fixture(autouse=True)
def _no_request_left() -> Iterator[None]:
    yield
    stopping.forget()


def models_with_shared_encoder(max_len: int) -> tuple[Any, Any]:
    """A language model and a classifier, in eval mode, with the same encoder."""
    torch.manual_seed(0)
    lm = build_language_model(SHAPE).eval()
    classifier = build_classifier(SHAPE, HeadShape(2, (4,), 5, max_len)).eval()
    torch.nn.init.normal_(lm[1].decoder.bias)
    with torch.no_grad():
        for name, tensor in encoder_tensors(classifier_encoder(classifier)).items():
            tensor.copy_(encoder_tensors(lm[0])[name])
    return lm, classifier


@pytest.mark.parametrize(("lengths", "max_len"), [([4, 9, 12, 5], 100), ([23, 3, 17], 100), ([23, 3, 17], 10)])
def test_it_is_the_language_models_loss_on_each_document_alone(lengths: list[int], max_len: int) -> None:
    lm, classifier = models_with_shared_encoder(max_len)
    documents = random_documents(lengths)
    n = len(lengths)
    loader = ClassifierLoader(documents, np.arange(n), np.zeros(n, np.int32), bs=n, seq_len=5)
    ((x, _),) = list(loader)
    expected: list[Tensor] = []
    for i in loader.document_order()[0]:
        ids = torch.from_numpy(documents.document(int(i)).astype(np.int64))
        lm.reset()
        losses = F.cross_entropy(lm(ids[None, :-1])[0][0], ids[1:], reduction="none")
        in_chunks = -(-len(ids) // 5) * 5
        expected.append(losses[max(0, in_chunks - max_len // 5 * 5) :])
    _, raw, _ = classifier(x)
    weight, bias = classifier_encoder(classifier).encoder.weight, lm[1].decoder.bias.detach()
    torch.testing.assert_close(next_token_loss(raw, x, weight, bias), torch.cat(expected).mean())


def test_documents_of_one_token_have_nothing_to_predict() -> None:
    ids = torch.tensor([[7], [8]])
    assert next_token_loss(torch.ones(2, 1, 6), ids, torch.ones(40, 6), torch.zeros(40)) == 0


class Watch(Callback):
    """Notes whether the differentiated loss is more than that of the classes, by phase of training."""

    order = LanguageModelLoss.order + 1
    run_valid = False

    def __init__(self) -> None:
        self.added: list[float] = []

    def after_loss(self) -> None:
        self.added.append(float(self.loss_grad.detach() - self.loss.detach()))


def auxiliary(weight: float = 0.5) -> LanguageModelLoss:
    torch.manual_seed(1)
    return LanguageModelLoss(weight, torch.randn(ARCHITECTURE.rows))


NO_REGULARIZATION = CLASSIFIER.model_copy(update={"alpha": 0.0, "beta": 0.0})


def test_it_is_added_where_the_encoder_learns(tmp_path: Path) -> None:
    watch = Watch()
    train(tmp_path, NO_REGULARIZATION, (auxiliary(), watch))
    assert watch.added[:5] == [0.0] * 5  # the first phase trains the head alone
    assert all(0.5 * 2.0 < added < 0.5 * 6.0 for added in watch.added[5:])  # around log(32) nats
    assert len(watch.added) == 15


def test_the_encoder_learns_the_language_of_its_documents(tmp_path: Path) -> None:
    watch = Watch()
    phases = (Phase(name="all", epochs=10, lr=3e-2),)
    settings = NO_REGULARIZATION.model_copy(update={"phases": phases, "drop_mult": 0.0})
    train(tmp_path, settings, (LanguageModelLoss(2.0, torch.zeros(ARCHITECTURE.rows)), watch))
    assert watch.added[0] == pytest.approx(2.0 * np.log(32), rel=0.05)
    assert watch.added[-1] < 0.9 * watch.added[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_resumes_exactly(tmp_path: Path, precision: str) -> None:
    unbroken = train(tmp_path / "unbroken", CLASSIFIER, (auxiliary(),), precision)
    assert not same(unbroken, train(tmp_path / "without", CLASSIFIER, precision=precision))
    for moment in (3, 9, 13, 16):
        with pytest.raises(Stopped):
            train(tmp_path / str(moment), CLASSIFIER, (auxiliary(), StopAt(moment)), precision)
        stopping.forget()
        again = train(tmp_path / str(moment), CLASSIFIER, (auxiliary(),), precision)
        assert same(again, unbroken), f"stopped at batch {moment}"
