"""What our parts of the AWD_LSTM change in fastai's: nothing that can be seen from outside."""

import numpy as np
import pytest
import torch
from fastai.text.models.awdlstm import EmbeddingDropout
from fastai.text.models.core import SentenceEncoder
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.model import awd_lstm
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier, build_language_model
from pipeline.training.loaders import pad_documents
from pipeline.training_settings import FinetuneLMSettings, TrainClassifierSettings


def test_dropping_looked_up_rows_equals_dropping_rows_of_the_embedding() -> None:
    model = build_language_model(Architecture(50, 8, 12, 2), FinetuneLMSettings(embed_p=0.5))
    ours = model[0].encoder_dp.train()
    theirs = EmbeddingDropout(ours.emb, 0.5).train()
    words = torch.tensor([[2, 3, 1, 4], [5, 2, 7, 1]])
    found = []
    for dropout in (ours, theirs):
        torch.manual_seed(3)
        rows = dropout(words)
        rows.square().sum().backward()
        found.append((rows.detach(), ours.emb.weight.grad.clone()))
        ours.emb.weight.grad = None
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert (found[0][0] == 0).all(-1).sum() > 2, "some words must be dropped, beside the padding"
    assert torch.equal(ours.eval()(words), nn.functional.embedding(words, ours.emb.weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weight_dropout_is_fastais_and_keeps_less_for_the_gradient(dtype: torch.dtype) -> None:
    """In float32 the same numbers are drawn; in 16 bits others are, faster."""
    ours = build_language_model(Architecture(50, 8, 12, 1), FinetuneLMSettings(weight_p=0.4))[0].rnns[0].train()
    raw = ours.weight_hh_l0_raw
    towards = torch.randn(raw.shape, dtype=dtype)
    torch.manual_seed(3)
    wanted = nn.functional.dropout(raw, 0.4 * FinetuneLMSettings().drop_mult).to(dtype)
    kept: list[torch.Tensor] = []
    torch.manual_seed(3)
    with (
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
    ):
        ours._setweights()
    found = ours.module.weight_hh_l0
    assert [tensor.dtype for tensor in kept] == [torch.bool]
    if dtype != torch.float32:
        wanted = (raw * kept[0] / awd_lstm._kept(raw.shape, 1 - ours.weight_p)[1]).to(dtype)
    assert 0 < (found == 0).sum() < found.numel()
    assert torch.equal(found == 0, ~kept[0])
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(weights, raw, towards)[0] for weights in (found, wanted)]
    torch.testing.assert_close(*gradients)
    ours.eval()._setweights()
    assert torch.equal(ours.module.weight_hh_l0, raw)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.97, 1.0])
def test_every_place_of_a_matrix_is_kept_as_often_as_any_other(share: float) -> None:
    """Four of them share a number that is drawn, whose bits have to be as many as are used."""
    shape = torch.Size((1001, 399))
    torch.manual_seed(5)
    kept, told = awd_lstm._kept(shape, share)
    assert kept.shape == shape
    assert told == pytest.approx(share, abs=2**-17)
    places = kept.flatten()[: -(shape.numel() % 4)].view(-1, 4).double()
    error = (share * (1 - share) / len(places)) ** 0.5
    assert (places.mean(0) - share).abs().max() <= 5 * error + 1e-5
    products = [(places[:, i] * places[:, j]).mean() - share**2 for i in range(4) for j in range(i)]
    assert max(map(abs, products)) <= 5 * error + 1e-5  # none decides on another


def test_a_share_of_next_to_nothing_is_not_none() -> None:
    """The weights that are kept are divided by it."""
    assert awd_lstm._kept(torch.Size((3, 5)), 1e-9)[1] > 0


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_weights_dropped_under_autocast_are_of_its_type_on_a_cpu_alone(kind: str) -> None:
    """Of cuDNN's LSTM all weights have to be of one type; tensors without numbers can be on a GPU that is not there."""
    torch.set_autocast_enabled(kind, True)
    torch.set_autocast_dtype(kind, torch.float16)
    try:
        with FakeTensorMode():
            dropped = awd_lstm._drop(torch.empty(12, 8, device=kind), 0.5)
    finally:
        torch.set_autocast_enabled(kind, False)
        torch.set_autocast_dtype(kind, torch.bfloat16 if kind == "cpu" else torch.float16)
    assert (dropped.device.type, dropped.dtype) == (kind, torch.float16 if kind == "cpu" else torch.float32)


def test_without_logits_the_first_output_is_what_the_decoder_would_read() -> None:
    architecture = Architecture(50, 8, 12, 2)
    with_logits, without = (build_language_model(architecture, logits=logits).eval() for logits in (True, False))
    without.load_state_dict(with_logits.state_dict())
    words = torch.arange(20).view(2, 10)
    logits, raw, dropped = with_logits(words)
    hidden, raw_again, dropped_again = without(words)
    assert torch.equal(without[1].decoder(hidden), logits)
    assert torch.equal(raw, raw_again)
    assert torch.equal(dropped, dropped_again)


@pytest.mark.parametrize("max_len", [12, 100])
def test_our_sentence_encoder_equals_fastais(max_len: int) -> None:
    settings = TrainClassifierSettings(seq_len=6, max_len=max_len, lin_ftrs=(5,))
    model = build_classifier(Architecture(50, 8, 12, 2), HeadShape.from_settings(settings, 2), settings).double()
    ours = model.train()[0]
    theirs = SentenceEncoder(6, ours.module, pad_idx=1, max_len=max_len).train()
    rng = np.random.default_rng(0)
    x = pad_documents([rng.integers(9, 50, size=n) for n in (29, 17, 12, 3)], 6)
    found = []
    for encoder in (ours, theirs):
        torch.manual_seed(3)
        output, mask = encoder(x)
        torch.manual_seed(4)
        logits = model[1]((output, mask))[0]
        gradient = torch.autograd.grad(logits.square().sum(), ours.module.encoder.weight)[0]
        found.append((output.detach(), mask, gradient))
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-14)
    assert output.shape[1] == min(30, max_len)
