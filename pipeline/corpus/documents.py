"""A document on its way into the corpus, and the names of the splits."""

from typing import NamedTuple

SPLITS = ("train", "unlabelled", "valid", "test")
"""The splits of a corpus, in the order in which it stores them."""
TRAIN, UNLABELLED, VALID, TEST = range(4)
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
    "test": "test",
    "unlabelled": "unlabelled", "unlabeled": "unlabelled", "unsup": "unlabelled", "unsupervised": "unlabelled",
}
"""What sources call their splits, and what the corpus calls them."""
MAX_DOCUMENT_BYTES = 64 * 2**20
"""A document is held in memory whole, several times over while it is tokenized. "War and Peace" has 3.2 MB."""


class RawDocument(NamedTuple):
    """One document as a reader found it; `text` is cleaned later."""

    doc_id: str
    split: str
    label: str | None
    group: str | None
    text: bytes | str
