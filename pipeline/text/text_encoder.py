"""Text to ids, exactly as training made them; imports no torch, so that a model in another form can use it alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.cleaning import clean_text
from pipeline.text.tokenizer import Tokenizer, load_tokenizer
from pipeline.text.vocabulary import ids_of_types, read_vocabulary

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class TextEncoder:
    """Text to ids, as training made them: cleaning, tokenizer, vocabulary."""

    tokenizer: Tokenizer
    numbers: dict[str, int]
    """Id of each token of the vocabulary."""

    @classmethod
    def load(cls, folder: Path) -> "TextEncoder":
        """The tokenizer and vocabulary in a model's folder."""
        vocabulary = read_vocabulary(folder)
        return cls(load_tokenizer(folder / "tokenizer"), {token: number for number, token in enumerate(vocabulary)})

    def encode(self, texts: Sequence[str | bytes], counts: Counter[str] | None = None) -> list[Ids]:
        """Ids of each text, xxbos first; what cleaning did is added to `counts`.

        A text that a corpus would drop, because it is empty or blank, is xxbos alone.
        """
        counted = Counter[str]() if counts is None else counts
        clean = [clean_text(text, counted) or "" for text in texts]
        if len(clean) == 1:  # the tokenizer's memory for many texts does not pay for one
            return [self._ids(self.tokenizer.tokenize(clean[0]))]
        if not clean:
            return []
        encoded = self.tokenizer.encode(clean)
        return np.split(self._ids(encoded.types)[encoded.ids], np.cumsum(encoded.lengths)[:-1])

    def read(self, text: str | bytes) -> tuple[list[str], Ids]:
        """Tokens of one text, unknown ones as they are written, and their ids."""
        tokens = self.tokenizer.tokenize(clean_text(text, Counter()) or "")
        return tokens, self._ids(tokens)

    def _ids(self, tokens: Sequence[str]) -> Ids:
        return ids_of_types(tokens, self.numbers).astype(np.int64)
