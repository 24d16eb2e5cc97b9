"""Small document collections for tests of loaders and training."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Documents:
    """Ids and offsets, as `pipeline.text.ids.IdStore` has them."""

    ids: NDArray[np.uint16]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, i: int) -> NDArray[np.uint16]:
        return self.ids[self.offsets[i] : self.offsets[i + 1]]


def random_documents(lengths: list[int], vocabulary_size: int = 40, seed: int = 0) -> Documents:
    """Documents of the given lengths; every id is a real token, none is padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(9, vocabulary_size, sum(lengths)).astype(np.uint16)
    return Documents(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def counting_documents(n: int, length: int, period: int = 20) -> Documents:
    """Documents that count upwards again and again: a language model can learn them."""
    ids = np.concatenate([(np.arange(length) + start) % period + 9 for start in range(n)]).astype(np.uint16)
    return Documents(ids, np.arange(n + 1, dtype=np.int64) * length)
