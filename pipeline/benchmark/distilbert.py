"""What a user would pick instead: DistilBERT of the usual size, in our precision, documents cut at 512 tokens.

Weights are random, since only time is measured; its ids are as many as the documents have tokens, without the time for
its own tokenizer.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from pipeline.artifact import open_artifact
from pipeline.benchmark.turns import Turns, Work
from pipeline.settings import RunSettings
from pipeline.text.ids import IdStore
from pipeline.training.device import resolve_device

MAX_TOKENS = 512
BS = 16
"""The usual batch of its fine-tuning recipes."""


def train(turns: Turns, work: Work) -> None:
    """Steps with AdamW over batches of similar length; units are documents."""
    lengths = _lengths(work, "ids")
    model = _model(work).train()
    optimizer, autocast = torch.optim.AdamW(model.parameters(), lr=5e-5), resolve_device(RunSettings()).autocast

    def epoch() -> None:
        for ids, mask in _batches(lengths, model.config.vocab_size):
            with autocast():
                loss = model(input_ids=ids, attention_mask=mask, labels=torch.arange(len(ids)) % 2).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    epoch()
    while True:
        turns.wait()
        epoch()
        turns.stop(len(lengths))


def predict(turns: Turns, work: Work) -> None:
    """Logits of all documents, batch by batch; units are documents."""
    lengths = _lengths(work, "ids-to-predict")
    model, autocast = _model(work).eval(), resolve_device(RunSettings()).autocast

    def run(lengths: list[int]) -> None:
        with torch.inference_mode(), autocast():
            for ids, mask in _batches(lengths, model.config.vocab_size):
                model(input_ids=ids, attention_mask=mask)

    run(lengths[:BS])
    while True:
        turns.wait()
        run(lengths)
        turns.stop(len(lengths))


def _model(work: Work) -> DistilBertForSequenceClassification:
    torch.manual_seed(0)
    return DistilBertForSequenceClassification(DistilBertConfig(**work.sizes.distilbert))


def _lengths(work: Work, ids: str) -> list[int]:
    """Lengths of the documents that it reads, longest first, cut."""
    store = IdStore.open(open_artifact(work.shared / ids, "ids"))
    lengths = np.minimum(store.n_tokens[store.documents("train")], MAX_TOKENS)
    return sorted(lengths.tolist(), reverse=True)[:: work.sizes.distilbert_share]


def _batches(lengths: list[int], vocabulary_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and mask [B, T] of batches padded to their longest document."""
    for at in range(0, len(lengths), BS):
        here = torch.tensor(lengths[at : at + BS])
        mask = torch.arange(int(here.max()))[None] < here[:, None]
        yield torch.randint(1, vocabulary_size, mask.shape) * mask, mask.long()
