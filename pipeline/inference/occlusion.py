"""Contributions by leaving out: how much a class's log-odds fall when a word is not there.

The document is read once more for each word, without it (Zeiler and Fergus 2014, arXiv:1311.2901; for words Li, Monroe
and Jurafsky 2016, arXiv:1612.08220). Unlike the gradient this is what the model really does, at one reading per word.
Shapes: T tokens, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.inference.attribution import log_odds
from pipeline.inference.bundle import BS, LoadedClassifier

METHOD = "occlusion: the fall of the class's log-odds when the word is left out"
OCCLUDED_WORDS = 300
"""A longer document has numbers for this many words, those read last; the work grows with words times tokens."""


def occlude(
    classifier: LoadedClassifier, ids: NDArray[Any], class_id: int, groups: Sequence[Sequence[int]], *,
    words: int = OCCLUDED_WORDS, between_steps: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Contribution [T] of words, given as positions of their tokens in `ids`, to the log-odds of a class.

    A word's number stands at its first token; its other tokens have 0. The first token of the document (xxbos) stays
    in and has 0. NaN for all but the `words` words that the model reads last.
    """
    found = np.zeros(len(ids))
    whole = [group for group in groups if group[0] > 0]
    wanted = whole[:words] if classifier.direction == "bwd" else whole[-words:]
    for group in whole:
        found[list(group)] = np.nan
    documents = [ids, *(np.delete(ids, list(group)) for group in wanted)]
    scores = np.zeros(len(documents))
    for batch in classifier.batches(np.array([len(d) for d in documents], dtype=np.int64), BS):
        logits = classifier.logits([documents[i] for i in batch], BS, between_steps)
        scores[batch] = log_odds(logits, class_id).numpy()
    for group, score in zip(wanted, scores[1:], strict=True):
        found[list(group)] = 0.0
        found[group[0]] = scores[0] - score
    return found
