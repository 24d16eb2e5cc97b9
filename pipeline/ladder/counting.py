"""The n-gram rung: counted on the training text, scored on validation, its length chosen there."""

import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from pipeline import stopping
from pipeline.artifact import Artifact
from pipeline.errors import DataError
from pipeline.ladder.fitting import WEIGHTS
from pipeline.ladder.kneser_ney import KneserNey
from pipeline.ladder.language_model import characters_per_token
from pipeline.ladder.rungs import KNESER_NEY
from pipeline.ladder.windows import texts_of
from pipeline.making import StageOutcome
from pipeline.model.text_files import copy_text_files
from pipeline.text.ids import IdStore
from pipeline.training.metrics import bits_per_character, perplexity

LENGTHS = (2, 3, 4, 5)
"""Words of the longest n-gram, of which the best on validation is kept."""


def train(ids: Artifact, work: Path) -> StageOutcome:
    """Count, score, and write the counts, vocabulary and tokenizer into `work`; DataError if there is too little text.
    """
    store = IdStore.open(ids)
    train_text, valid_text = texts_of(store)
    if len(train_text) < max(LENGTHS) or len(valid_text) < 2:
        raise DataError(
            f"{KNESER_NEY} counts {max(LENGTHS)} words of training text at least and predicts one of validation; there "
            f"are {len(train_text)} and {len(valid_text)}.",
            "Take a longer text, or a larger prepare_corpus.valid_fraction with --force.",
        )
    predicted, best, nats, hits, train_s = len(valid_text) - 1, None, math.inf, 0, 0.0
    for length in LENGTHS:
        stopping.check(KNESER_NEY)
        started = time.monotonic()
        model = KneserNey.count(train_text, length, len(store.vocabulary))
        train_s += time.monotonic() - started
        found = model.score(valid_text)
        if found[0] < nats:
            best, (nats, hits) = model, found
    assert best is not None  # every probability is above 0
    tensors = {
        f"{length}.{name}": torch.from_numpy(getattr(grams, name))
        for length, grams in enumerate(best.orders, 1) for name in ("keys", "counts")
    }
    tensors["discounts"] = torch.tensor([grams.discount for grams in best.orders], dtype=torch.float64)
    save_file(tensors, work / WEIGHTS)
    copy_text_files(ids.path, work)
    loss = nats / predicted
    return StageOutcome(
        metrics={
            "valid_loss": loss,
            "perplexity": perplexity(loss),
            "accuracy": hits / predicted,
            "bits_per_character": bits_per_character(loss, 1, characters_per_token(store)),
            "parameters": best.parameters,
            "train_s": round(train_s, 3),
            "tokens_per_s": round(len(LENGTHS) * len(train_text) / train_s, 1),
            "longest": len(best.orders),
            "train_tokens": len(train_text),
            "valid_tokens": predicted,
        },
        identity=dict(ids.manifest.identity),
    )
