"""What our parts of the AWD_LSTM change in fastai's: nothing that can be seen from outside."""

import torch
from fastai.text.models.awdlstm import EmbeddingDropout
from torch import nn

from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.settings import FinetuneLMSettings


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
