"""The labelled documents that a classifier is trained on and chosen by: all of them, or a few drawn by a seed.

With few labels the language model shows its worth (ULMFiT sec. 5, low-shot learning). A draw of n is split between
training and validation as the corpus is, so that no more than n labels are ever looked at; every label gets as many
documents as it has, up to an equal share; a smaller draw with the same seed is part of a larger one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.corpus.splits import quotas
from pipeline.text.ids import IdStore

DRAWN_SPLITS = ("train", "valid")
Documents = npt.NDArray[np.int64]


def labelled_documents(store: IdStore, splits: Sequence[str], draw: int | None = None, seed: int = 0) -> Documents:
    """Numbers of the documents of `splits` that have a label, rising; of train and valid only those of the draw."""
    found = [_of_split(store, split) for split in splits]
    if draw is not None:
        found = [
            _drawn(documents, store.label_ids[documents], _size(store, split, draw), seed)
            if split in DRAWN_SPLITS else documents
            for split, documents in zip(splits, found, strict=True)
        ]
    return np.sort(np.concatenate(found))


def _of_split(store: IdStore, split: str) -> Documents:
    documents = store.documents(split)
    return documents[store.label_ids[documents] >= 0]


def _size(store: IdStore, split: str, draw: int) -> int:
    """How many of a draw are of `split`: the corpus's own share, of validation two at least."""
    n_train, n_valid = (len(_of_split(store, name)) for name in DRAWN_SPLITS)
    of_valid = min(max(round(draw * n_valid / max(n_train + n_valid, 1)), 2), n_valid)
    return of_valid if split == "valid" else max(draw - of_valid, 0)


def _drawn(documents: Documents, label_ids: npt.NDArray[np.int32], size: int, seed: int) -> Documents:
    order = np.random.default_rng(seed).permutation(len(documents))
    codes, counts = np.unique(label_ids, return_counts=True)
    taken = [
        order[label_ids[order] == code][:quota]
        for code, quota in zip(codes, quotas(counts.tolist(), size), strict=True)
    ]
    return documents[np.concatenate(taken)] if taken else documents
