"""Encoders of the character models of S3: ids [B, T] -> hidden [B, P, H], P the positions that predict.

All begin every window with an empty state; CharStatefulRnn, which goes on from batch to batch, is in `recurrent`.
Shapes: B rows, T tokens, V vocabulary, E embedding size, H hidden size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.ladder.rungs import LanguageModelSettings

EMB_SZ = 42
"""S3: half of the 85 different characters of its text."""


class _Step(nn.Module):
    """One character more: a ReLU layer on its embedding is added to the state; a linear layer and tanh."""

    def __init__(self, vocabulary: int, n_hid: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMB_SZ)
        self.read = nn.Linear(EMB_SZ, n_hid)
        self.linear = nn.Linear(n_hid, n_hid)

    def forward(self, h_BH: Tensor, characters_B: Tensor) -> Tensor:
        return torch.tanh(self.linear(h_BH + F.relu(self.read(self.embedding(characters_B)))))


class _ConcatStep(nn.Module):
    """The same, but what is read is the state and the embedding side by side."""

    def __init__(self, vocabulary: int, n_hid: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMB_SZ)
        self.read = nn.Linear(EMB_SZ + n_hid, n_hid)
        self.linear = nn.Linear(n_hid, n_hid)

    def forward(self, h_BH: Tensor, characters_B: Tensor) -> Tensor:
        together = torch.cat([h_BH, self.embedding(characters_B)], 1)
        return torch.tanh(self.linear(F.relu(self.read(together))))


class Unrolled(nn.Module):
    """Three steps, written out."""

    def __init__(self, vocabulary: int, n_hid: int) -> None:
        super().__init__()
        self.step, self.n_hid = _Step(vocabulary, n_hid), n_hid

    def forward(self, characters_BT: Tensor) -> Tensor:
        first, second, third = characters_BT.unbind(1)
        empty = torch.zeros(len(first), self.n_hid, device=first.device)
        return self.step(self.step(self.step(empty, first), second), third)[:, None]


class Loop(nn.Module):
    """Steps over any number of characters; one prediction at their end."""

    def __init__(self, step: nn.Module, n_hid: int) -> None:
        super().__init__()
        self.step, self.n_hid = step, n_hid

    def forward(self, characters_BT: Tensor) -> Tensor:
        h_BH = torch.zeros(len(characters_BT), self.n_hid, device=characters_BT.device)
        for characters_B in characters_BT.unbind(1):
            h_BH = self.step(h_BH, characters_B)
        return h_BH[:, None]


class Rnn(nn.Module):
    """torch's own loop; a prediction at the end, or after every character, which may be only to learn from."""

    def __init__(self, vocabulary: int, settings: LanguageModelSettings) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMB_SZ)
        self.rnn = nn.RNN(EMB_SZ, settings.n_hid, batch_first=True)
        self.last = settings.predicts == "last"
        self.last_when_used = self.last or settings.scored == "after windows"

    def forward(self, characters_BT: Tensor) -> Tensor:
        output_BTH, _ = self.rnn(self.embedding(characters_BT))
        return output_BTH[:, -1:] if (self.last if self.training else self.last_when_used) else output_BTH


def encoder(name: str, vocabulary: int, settings: LanguageModelSettings) -> nn.Module:
    """The encoder of the character model `name`."""
    n_hid = settings.n_hid
    match name:
        case "Char3":
            return Unrolled(vocabulary, n_hid)
        case "CharLoop":
            return Loop(_Step(vocabulary, n_hid), n_hid)
        case "CharLoopConcat":
            return Loop(_ConcatStep(vocabulary, n_hid), n_hid)
        case "CharRnn" | "CharSeqRnn":
            return Rnn(vocabulary, settings)
        case _:
            raise ValueError(f"{name} is no language model")
