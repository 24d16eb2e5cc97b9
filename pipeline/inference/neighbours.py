"""What lies nearest: words by the cosine of their embeddings, documents by that of their vectors.

Shapes: V tokens of the vocabulary, D numbers of a vector.
"""

import difflib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifact import find_manifest
from pipeline.errors import InputError, UsageError
from pipeline.inference.embed import Embedder
from pipeline.inference.vectors import Matrix, Origin, read_blocks
from pipeline.pretrained import shipped_models
from pipeline.text.rules import SPACE, SPECIAL_TOKENS

Nearest = list[tuple[str, float]]
"""Words or ids of documents with their cosines, nearest first."""


@dataclass(frozen=True)
class WordVectors:
    """The vocabulary of a model and its embeddings."""

    model: Path
    numbers: dict[str, int]
    """Id of each token."""
    vectors: Matrix
    """[V, D]"""

    @classmethod
    def of(cls, embedder: Embedder) -> "WordVectors":
        """Those of a model."""
        vectors: Matrix = embedder.encoder.embedding.weight[: len(embedder.text.numbers)].float().cpu().numpy()
        return cls(embedder.path, embedder.text.numbers, vectors)

    def token(self, word: str) -> str:
        """The token of a word: the piece that begins a word, or what is written like it; as written, or in lower case.

        Raises UsageError, which names words like it, if the vocabulary has none.
        """
        for name in (SPACE + word, word, SPACE + word.lower(), word.lower()):
            if name in self.numbers and name not in SPECIAL_TOKENS:
                return name
        shown = {name.removeprefix(SPACE): None for name in self.numbers if name not in SPECIAL_TOKENS}
        near = difflib.get_close_matches(word.lower(), shown, n=3)
        mend = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Choose words of its training text."
        raise UsageError(f"{word!r} is not in the vocabulary of {self.model} ({len(self.numbers):,} tokens).", mend)

    def of_words(self, words: Sequence[str]) -> Matrix:
        """Vectors [N, D] of words, in their order."""
        return self.vectors[[self.numbers[self.token(word)] for word in words]]

    def nearest(self, plus: Sequence[str], minus: Sequence[str] = (), n: int = 10) -> Nearest:
        """The tokens nearest to the sum of some words less others, but for these words and special tokens.

        With one word: its neighbours. With king + woman - man: an analogy (3CosAdd: Mikolov et al. 2013, N13-1090).
        Raises UsageError for words that are not known, or that take each other away.
        """
        asked = [self.token(word) for word in (*plus, *minus)]
        direction = _unit(self.of_words(plus)).sum(axis=0)
        if minus:
            direction = direction - _unit(self.of_words(minus)).sum(axis=0)
        if np.linalg.norm(direction) < 1e-6:
            raise UsageError("These words less those leave nothing to be near to.", "Name other words to take away.")
        cosines = _unit(self.vectors) @ _unit(direction[None])[0]
        cosines[[self.numbers[name] for name in {*asked, *SPECIAL_TOKENS} & self.numbers.keys()]] = -np.inf
        names = list(self.numbers)
        order = np.argsort(-cosines, kind="stable")[:n]
        return [(names[i], float(cosines[i])) for i in order if np.isfinite(cosines[i])]


def model_of(origin: Origin, home: Path) -> Path:
    """Folder of the model that made document vectors: where it was then, or is now below `home` or among what ships.

    If it is in none of these, the place where it was.
    """
    recorded = Path(origin.model)
    places = [recorded, home / recorded, home / "models" / Path(*recorded.parts[-2:])]
    places += [folder / recorded.name for folder in shipped_models().values()]
    for place in places:
        if find_manifest(place, origin.fingerprint) is not None:
            return place
    return recorded


def nearest_documents(embedder: Embedder, text: str, path: Path, origin: Origin, n: int = 10) -> Nearest:
    """The documents of a Parquet file that lie nearest to a text, by the cosine of vectors less their mean.

    Without that all vectors of a model point the same way (Mu and Viswanath 2018, arXiv:1702.01417): the median cosine
    of two reviews is 0.93. The file is read twice, a row group at a time. Raises InputError if `origin`, what it says
    of itself, is another model.
    """
    if origin.fingerprint != embedder.fingerprint:
        raise InputError(
            f"The vectors of {path} were made by {origin.model} ({origin.fingerprint[:12]}), which is not "
            f"{embedder.path} ({embedder.fingerprint[:12]}).",
            "Name that model with --model, or embed the documents again.",
        )
    total, n_documents = np.zeros(origin.size), 0
    for block in read_blocks(path):
        total += block.vectors.sum(axis=0, dtype=np.float64)
        n_documents += len(block.ids)
    mean = (total / n_documents if n_documents > 1 else total * 0).astype(np.float32)
    query = _unit(embedder.vectors(embedder.text.encode([text]), origin.pooling) - mean)[0]
    best: list[tuple[float, int, str]] = []
    number = 0
    for block in read_blocks(path):
        for name, cosine in zip(block.ids, (_unit(block.vectors - mean) @ query).tolist(), strict=True):
            best.append((cosine, -number, name))
            number += 1
        best = heapq.nlargest(n, best)
    return [(name, cosine) for cosine, _, name in best]


def _unit(vectors: Matrix) -> Matrix:
    """Vectors of length 1 [N, D]; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    lengths[lengths == 0] = 1
    return vectors / lengths
