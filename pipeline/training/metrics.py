"""Metrics: of language models weighted by tokens, where fastai weighs batches by rows; of classifiers by documents."""

import math

from fastai.learner import Learner, Metric
from fastai.metrics import accuracy
from torch.nn import functional as F

from pipeline.training.history import Record

CLASSIFIER_METRICS = (accuracy, F.cross_entropy)
"""The loss without class weights and smoothing: the weighted mean of a batch is not the mean of its documents."""


def classifier_figures(figures: dict[str, float]) -> Record:
    """What the history has of the metrics of an epoch."""
    return {"valid_loss": figures["cross_entropy"], "accuracy": figures["accuracy"]}


class TokenLoss(Metric):
    """Mean cross-entropy per predicted token, in nats."""

    def reset(self) -> None:
        """Start an epoch."""
        self.total, self.tokens = 0.0, 0

    def accumulate(self, learn: Learner) -> None:
        """Add a batch, of all processes."""
        n = learn.loss_func.tokens
        self.total += float(learn.loss) * n
        self.tokens += n

    @property
    def value(self) -> float:
        """Nats per token."""
        return self.total / self.tokens if self.tokens else math.nan

    @property
    def name(self) -> str:
        """Column name."""
        return "token_loss"


class TokenAccuracy(Metric):
    """Share of tokens whose most likely prediction is right, as `DecoderLoss` counts them."""

    def reset(self) -> None:
        """Start an epoch."""
        self.right, self.tokens = 0, 0

    def accumulate(self, learn: Learner) -> None:
        """Add a batch, of all processes."""
        self.right += int(learn.loss_func.hits)
        self.tokens += learn.loss_func.tokens

    @property
    def value(self) -> float:
        """Between 0 and 1."""
        return self.right / self.tokens if self.tokens else math.nan

    @property
    def name(self) -> str:
        """Column name."""
        return "token_accuracy"


def bits_per_character(nats_per_token: float, tokens: int, characters: float) -> float:
    """Bits that the model needs per character of the text; comparable between word and subword vocabularies.

    `tokens` and `characters` count the same text. What a tokenizer drops (case folded by rules is kept as tokens,
    unknown words are not spelled out) is not charged for, so read it beside the share of unknown tokens.
    """
    return nats_per_token * tokens / math.log(2) / characters


def perplexity(nats_per_token: float) -> float:
    """exp of the loss, infinite where that overflows."""
    return math.exp(nats_per_token) if nats_per_token < 700 else math.inf
