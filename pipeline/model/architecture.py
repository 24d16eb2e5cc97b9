"""Sizes of an AWD_LSTM, stored beside its weights and inherited by whatever starts from them."""

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.artifact import hash_json
from pipeline.training_settings import FinetuneLMSettings, TrainClassifierSettings

ROW_MULTIPLE = 8
"""Embedding and decoder rows are rounded up to this: half-precision matrix units want it (fastai pads with xxfake)."""
PAD_ID = 1
"""Position of xxpad in fastai's special tokens."""


@dataclass(frozen=True)
class Architecture:
    """What must agree before weights can be loaded."""

    vocabulary_size: int
    emb_sz: int
    n_hid: int
    n_layers: int
    tie_weights: bool = True

    @property
    def rows(self) -> int:
        """Rows of the embedding: the vocabulary and a few that no token uses."""
        return -(-self.vocabulary_size // ROW_MULTIPLE) * ROW_MULTIPLE

    @property
    def layer_sizes(self) -> list[tuple[int, int]]:
        """(input, output) size of each LSTM layer: emb -> hid -> ... -> hid -> emb."""
        sizes = [self.emb_sz] + [self.n_hid] * (self.n_layers - 1) + [self.emb_sz]
        return list(pairwise(sizes))

    @classmethod
    def from_settings(cls, settings: FinetuneLMSettings, vocabulary_size: int) -> "Architecture":
        """The architecture a recipe asks for."""
        return cls(vocabulary_size, settings.emb_sz, settings.n_hid, settings.n_layers, settings.tie_weights)

    @classmethod
    def load(cls, path: Path) -> "Architecture":
        """Read `architecture.json`."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def save(self, path: Path) -> None:
        """Write `architecture.json`."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def hash(self) -> str:
        """SHA-256 of all sizes."""
        return hash_json(asdict(self))


@dataclass(frozen=True)
class HeadShape:
    """What is needed, beside the encoder's architecture, to build a classifier again."""

    n_classes: int
    lin_ftrs: tuple[int, ...]
    seq_len: int
    max_len: int

    @classmethod
    def from_settings(cls, settings: TrainClassifierSettings, n_classes: int) -> "HeadShape":
        """The head a recipe asks for."""
        return cls(n_classes, settings.lin_ftrs, settings.seq_len, settings.max_len)

    @classmethod
    def load(cls, path: Path) -> "HeadShape":
        """Read `head.json`."""
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "lin_ftrs": tuple(values["lin_ftrs"])})

    def save(self, path: Path) -> None:
        """Write `head.json`."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
