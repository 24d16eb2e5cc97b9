"""Language models of S2: encoders ids [B, T] -> hidden [B, P, H], P the positions that predict, and their decoder.

Shapes: B rows, T tokens, V vocabulary, H hidden size, L layers.
"""

import torch
from fastai.text.models.core import SequentialRNN
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.ladder import characters
from pipeline.ladder.rungs import LanguageModelSettings

Hidden = list[tuple[Tensor, ...]]


class _Step(nn.Module):
    """One word more: h + embedding, a linear layer, ReLU."""

    def __init__(self, vocabulary: int, n_hid: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, n_hid)
        self.linear = nn.Linear(n_hid, n_hid)

    def forward(self, h_BH: Tensor | float, words_B: Tensor) -> Tensor:
        return F.relu(self.linear(h_BH + self.embedding(words_B)))


class Unrolled(nn.Module):
    """LMModel1: three words, written out."""

    def __init__(self, vocabulary: int, settings: LanguageModelSettings) -> None:
        super().__init__()
        self.step = _Step(vocabulary, settings.n_hid)

    def forward(self, words_BT: Tensor) -> Tensor:
        first, second, third = words_BT.unbind(1)
        return self.step(self.step(self.step(0.0, first), second), third)[:, None]


class Loop(nn.Module):
    """LMModel2: the same for any number of words, one prediction at their end."""

    def __init__(self, vocabulary: int, settings: LanguageModelSettings) -> None:
        super().__init__()
        self.step = _Step(vocabulary, settings.n_hid)

    def forward(self, words_BT: Tensor) -> Tensor:
        h: Tensor | float = 0.0
        for words_B in words_BT.unbind(1):
            h = self.step(h, words_B)
        assert isinstance(h, Tensor)
        return h[:, None]


class StatefulLoop(nn.Module):
    """LMModel3 and 4: the loop goes on where the last batch ended, and predicts at the end or after every word."""

    bs = 1
    """What a checkpoint keeps beside `hidden`; here the state itself tells it."""

    def __init__(self, vocabulary: int, settings: LanguageModelSettings) -> None:
        super().__init__()
        self.step = _Step(vocabulary, settings.n_hid)
        self.last = settings.predicts == "last"
        self.hidden: Hidden = []

    def reset(self) -> None:
        """Forget the text."""
        self.hidden = []

    def forward(self, words_BT: Tensor) -> Tensor:
        before = self.hidden[0][0] if self.hidden else 0.0
        outputs: list[Tensor] = []
        for words_B in words_BT.unbind(1):
            outputs.append(self.step(outputs[-1] if outputs else before, words_B))
        self.hidden = [(outputs[-1].detach(),)]
        return torch.stack(outputs[-1:] if self.last else outputs, 1)


class Layers(nn.Module):
    """LMModel5 to 7, CharStatefulRnn: layers of nn.RNN or nn.LSTM over an embedding, of their own size or `emb_sz`."""

    bs = 1

    def __init__(
        self, kind: type[nn.RNN] | type[nn.LSTM], vocabulary: int, settings: LanguageModelSettings,
        emb_sz: int | None = None,
    ) -> None:
        super().__init__()
        emb_sz = emb_sz or settings.n_hid
        self.embedding = nn.Embedding(vocabulary, emb_sz)
        self.rnn = kind(emb_sz, settings.n_hid, settings.n_layers, batch_first=True)
        self.hidden: Hidden = []
        """(h,) of an RNN, (h, c) of an LSTM, [L, B, H] each; empty: zeros."""

    def reset(self) -> None:
        """Forget the text."""
        self.hidden = []

    def forward(self, words_BT: Tensor) -> Tensor:
        before = self.hidden[0] if self.hidden else (None,)
        output_BTH, after = self.rnn(self.embedding(words_BT), before if len(before) > 1 else before[0])
        after = after if isinstance(after, tuple) else (after,)
        self.hidden = [tuple(part.detach() for part in after)]
        return output_BTH


class Decoder(nn.Module):
    """Dropout and a linear layer [V, H] whose product is left to `DecoderLoss`; its weights may be the embedding's."""

    def __init__(self, n_hid: int, vocabulary: int, output_p: float = 0.0, tied: nn.Embedding | None = None) -> None:
        super().__init__()
        self.dropout = nn.Dropout(output_p)
        self.decoder = nn.Linear(n_hid, vocabulary)
        if tied is not None:
            self.decoder.weight = tied.weight

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dropped = self.dropout(hidden)
        return dropped, hidden, dropped


def build(name: str, vocabulary: int, settings: LanguageModelSettings) -> SequentialRNN:
    """The language model `name`: encoder and decoder, ids [B, T] -> (hidden after dropout, hidden, the first again)."""
    encoder: nn.Module
    match name:
        case "LMModel1":
            encoder = Unrolled(vocabulary, settings)
        case "LMModel2":
            encoder = Loop(vocabulary, settings)
        case "LMModel3" | "LMModel4":
            encoder = StatefulLoop(vocabulary, settings)
        case "LMModel5":
            encoder = Layers(nn.RNN, vocabulary, settings)
        case "LMModel6" | "LMModel7":
            encoder = Layers(nn.LSTM, vocabulary, settings)
        case "CharStatefulRnn":
            encoder = Layers(nn.RNN, vocabulary, settings, characters.EMB_SZ)
        case _:
            encoder = characters.encoder(name, vocabulary, settings)
    tied = encoder.embedding if isinstance(encoder, Layers) and name == "LMModel7" else None
    return SequentialRNN(encoder, Decoder(settings.n_hid, vocabulary, settings.output_p, tied))
