"""Networks of the classifier rungs: ids [B, T], padded behind, -> logits [B, C].

Shapes: B documents, T tokens, V vocabulary, E embedding size, H hidden size, C classes.
"""

import torch
from fastai.text.models.core import SequentialRNN
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from pipeline.ladder.rungs import ClassifierSettings
from pipeline.model.architecture import PAD_ID

PAIR_BUCKETS = 2**15
"""Rows that hashed pairs of tokens share."""
_PRIME = 1_000_003


class BagOfWords(nn.Module):
    """S5: a linear layer on the counts of tokens."""

    def __init__(self, vocabulary: int, n_classes: int) -> None:
        super().__init__()
        self.weight = nn.EmbeddingBag(vocabulary, n_classes, mode="sum", padding_idx=PAD_ID)
        nn.init.zeros_(self.weight.weight)
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.weight(ids_BT) + self.bias


class NGramBag(nn.Module):
    """The mean of the embeddings of tokens and of hashed pairs of neighbours, and a linear layer (fastText)."""

    def __init__(self, vocabulary: int, n_classes: int, settings: ClassifierSettings) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.bag = nn.EmbeddingBag(vocabulary + PAIR_BUCKETS, settings.emb_sz, mode="mean", padding_idx=PAD_ID)
        nn.init.uniform_(self.bag.weight, -1 / settings.emb_sz, 1 / settings.emb_sz)
        self.dropout = nn.Dropout(settings.output_p)
        self.linear = nn.Linear(settings.emb_sz, n_classes)

    def forward(self, ids_BT: Tensor) -> Tensor:
        first, second = ids_BT[:, :-1], ids_BT[:, 1:]
        pairs = (first * _PRIME + second) % PAIR_BUCKETS + self.vocabulary
        pairs = pairs.masked_fill((first == PAD_ID) | (second == PAD_ID), PAD_ID)
        return self.linear(self.dropout(self.bag(torch.cat([ids_BT, pairs], 1))))


class MLP(nn.Module):
    """S4: the embeddings of a document's first `length` tokens, one after the other, through three layers."""

    def __init__(self, vocabulary: int, n_classes: int, length: int, settings: ClassifierSettings) -> None:
        super().__init__()
        self.length, n_hid = length, settings.n_hid
        self.embedding = nn.Embedding(vocabulary, settings.emb_sz)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(length * settings.emb_sz, n_hid), nn.Dropout(0.7), nn.ReLU(),
            nn.Linear(n_hid, n_hid), nn.Dropout(0.4), nn.ReLU(), nn.Linear(n_hid, n_classes),
        )

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.layers(self.embedding(_of_length(ids_BT, self.length)))


class CNN(nn.Module):
    """S4: convolutions of width 3 with 32, 32, 64 and 64 channels, halved after each two, then two layers."""

    def __init__(self, vocabulary: int, n_classes: int, length: int, settings: ClassifierSettings) -> None:
        super().__init__()
        self.length, n_hid = length, settings.n_hid
        self.embedding = nn.Embedding(vocabulary, settings.emb_sz)
        layers: list[nn.Module] = []
        before = settings.emb_sz
        for channels, dropout, halve in ((32, 0.7, False), (32, 0.6, True), (64, 0.5, False), (64, 0.3, True)):
            layers += [nn.Conv1d(before, channels, 3, padding=1), nn.Dropout(dropout), nn.ReLU()]
            layers += [nn.MaxPool1d(2)] if halve else []
            before = channels
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(length // 4 * before, n_hid), nn.ReLU(), nn.Linear(n_hid, n_classes)
        )

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.layers(self.embedding(_of_length(ids_BT, self.length)).transpose(1, 2))


class BiLSTM(nn.Module):
    """S4: where an LSTM ends that reads forwards and where one ends that reads backwards; padding is not read.

    With several layers, those of the last, and dropout before each and on the embeddings (char-lstm, of this project).
    """

    def __init__(self, vocabulary: int, n_classes: int, length: int, settings: ClassifierSettings) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(vocabulary, settings.emb_sz)
        deep = settings.n_layers > 1
        self.rnn = nn.LSTM(
            settings.emb_sz, settings.n_hid, settings.n_layers, batch_first=True, bidirectional=True,
            dropout=settings.output_p if deep else 0.0,
        )
        self.input_dropout = nn.Dropout(settings.output_p if deep else 0.0)
        self.dropout = nn.Dropout(settings.output_p)
        self.linear = nn.Linear(2 * settings.n_hid, n_classes)

    def forward(self, ids_BT: Tensor) -> Tensor:
        ids_BT = ids_BT[:, : self.length]
        lengths = (ids_BT != PAD_ID).sum(1).clamp_min(1).cpu()
        embedded = self.input_dropout(self.embedding(ids_BT))
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        _, (hidden_BH, _) = self.rnn(packed)
        return self.linear(self.dropout(torch.cat(tuple(hidden_BH[-2:]), 1)))


class CharRNN(nn.Module):
    """S6: state and prediction are linear in what is read and in the state before; what the last token predicts counts.

    A linear layer on one-hot letters is an embedding. With `relu` what is read goes through a ReLU first on its way
    into the state.
    """

    def __init__(
        self, vocabulary: int, n_classes: int, length: int, settings: ClassifierSettings, *, relu: bool
    ) -> None:
        super().__init__()
        self.length, self.relu, self.n_hid = length, relu, settings.n_hid
        self.read = nn.Embedding(vocabulary, settings.n_hid)
        self.keep = nn.Linear(settings.n_hid, settings.n_hid)
        self.predict_read = nn.Embedding(vocabulary, n_classes)
        self.predict_state = nn.Linear(settings.n_hid, n_classes)
        bound = (vocabulary + settings.n_hid) ** -0.5  # of a linear layer on letter and state together
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, ids_BT: Tensor) -> Tensor:
        ids_BT = ids_BT[:, : self.length]
        h_BH = torch.zeros(len(ids_BT), self.n_hid, device=ids_BT.device)
        before_BH = h_BH
        for tokens_B in ids_BT.unbind(1):
            goes_on = (tokens_B != PAD_ID)[:, None]
            read = self.read(tokens_B)
            before_BH = torch.where(goes_on, h_BH, before_BH)
            h_BH = torch.where(goes_on, (F.relu(read) if self.relu else read) + self.keep(h_BH), h_BH)
        last = (ids_BT != PAD_ID).sum(1, keepdim=True).clamp_min(1) - 1
        return self.predict_read(ids_BT.gather(1, last)[:, 0]) + self.predict_state(before_BH)


class _ForLearner(nn.Module):
    """A network whose logits come three times, as fastai's text learner wants them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.network(ids_BT)
        return logits, logits, logits


def build(name: str, vocabulary: int, n_classes: int, longest: int, settings: ClassifierSettings) -> SequentialRNN:
    """The classifier `name` for documents of up to `longest` tokens; it reads settings.seq_len at most."""
    length = (min(longest, settings.seq_len) + 3) // 4 * 4
    network: nn.Module
    match name:
        case "bag-of-words":
            network = BagOfWords(vocabulary, n_classes)
        case "n-gram-embeddings":
            network = NGramBag(vocabulary, n_classes, settings)
        case "MLP":
            network = MLP(vocabulary, n_classes, length, settings)
        case "CNN":
            network = CNN(vocabulary, n_classes, length, settings)
        case "BiLSTM" | "char-lstm":
            network = BiLSTM(vocabulary, n_classes, length, settings)
        case _:
            network = CharRNN(vocabulary, n_classes, length, settings, relu=name == "char-rnn-relu")
    return SequentialRNN(_ForLearner(network))


def _of_length(ids_BT: Tensor, length: int) -> Tensor:
    """Cut, or padded behind, to `length` tokens."""
    return F.pad(ids_BT, (0, length - ids_BT.shape[1]), value=PAD_ID)
