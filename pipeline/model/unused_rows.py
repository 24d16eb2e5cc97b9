"""Embedding rows that pad the vocabulary to a multiple of 8: no token uses them, and none must be predicted."""

from torch import Tensor

SILENCE = 30.0
"""How far below every real token's score the score of an unused row stays: e**-30 is nothing in any arithmetic used."""


def silence(weight: Tensor, bias: Tensor, n_used: int) -> None:
    """Give the rows that no token uses a bias with which they get no probability, whatever the model reads.

    Their weight is 0, so their score is their bias. The last LSTM layer's output lies within (-1, 1), so the score of
    a token is at least its bias less the sum of its weights' sizes; the best such bound is a score the model always
    reaches, and the unused rows stay `SILENCE` below it. A bias of, say, -10,000 would do too, but would also spoil
    every mean over rows, such as fastai takes for tokens it does not know.
    """
    reached = (bias[:n_used] - weight[:n_used].abs().sum(1)).max()
    bias[n_used:] = reached - SILENCE
