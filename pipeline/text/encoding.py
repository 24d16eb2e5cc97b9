"""Token ids of a batch of documents before any vocabulary: local types and positions into them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class EncodedBatch:
    """Tokens of some documents.

    `types`: distinct tokens in order of first appearance; `ids`: uint32, all documents concatenated, positions into
    `types`; `lengths`: int64, tokens of each document.
    """

    types: list[str]
    ids: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.int64]


def by_first_appearance(
    ids: npt.NDArray[np.int64], n_ids: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Number the distinct values of `ids` (all below `n_ids`) by first appearance.

    Returns the distinct values in that order and `ids` renumbered. Linear in len(ids), where np.unique would sort.
    """
    first = np.full(n_ids, -1, dtype=np.int64)
    first[ids[::-1]] = np.arange(len(ids) - 1, -1, -1, dtype=np.int64)
    distinct = np.flatnonzero(first >= 0)
    distinct = distinct[np.argsort(first[distinct], kind="stable")]
    number = np.zeros(n_ids, dtype=np.uint32)
    number[distinct] = np.arange(len(distinct), dtype=np.uint32)
    return distinct, number[ids]


def encode_lists(documents: Sequence[Sequence[str]]) -> EncodedBatch:
    """The batch of documents that are already lists of tokens."""
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(token, len(numbers)) for document in documents for token in document]
    return EncodedBatch(
        list(numbers), np.asarray(ids, dtype=np.uint32), np.asarray([len(d) for d in documents], dtype=np.int64)
    )
