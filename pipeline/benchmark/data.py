"""Generated reviews: lengths as IMDB's, words by Zipf's law, with the capitals and marks that rules act on."""

import numpy as np
from numpy.typing import NDArray

from pipeline.text.rules import SPECIAL_TOKENS

Lengths = NDArray[np.int64]
MEDIAN_WORDS, MEDIAN_TOKENS, SPREAD = 176, 224, 0.75
"""IMDB's 25,000 training reviews: median of words, of fastai's tokens, and deviation of their logarithm."""
LONGEST_TOKENS = 3000
TYPES = 120_000
"""Different words of the generated reviews."""
BOS_ID = SPECIAL_TOKENS.index("xxbos")
_ONSETS = ("b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "ch")
_RIMES = ("a", "e", "i", "o", "u", "ea", "ing", "er")
_SYLLABLES = [onset + rime for onset in _ONSETS for rime in _RIMES]
_ENDINGS = (".", ".", ".", ",", ",", "!", "?", "...", " <br /><br />", "'s", "n't it", " &amp; co", "!!!!", " - ")


def review_lengths(n: int, median: int, rng: np.random.Generator) -> Lengths:
    """Lengths of `n` reviews, in words or tokens."""
    return np.clip(rng.lognormal(np.log(median), SPREAD, n), 10, LONGEST_TOKENS).astype(np.int64)


def lengths_by_batch(n_batches: int, bs: int, rng: np.random.Generator) -> Lengths:
    """Lengths in tokens of `n_batches` x `bs` reviews as they come in training: batches of similar length.

    fastai and this pipeline sort reviews by length within 50 batches; these are `n_batches` of such 50, evenly spread.
    """
    batches = np.sort(review_lengths(50 * bs, MEDIAN_TOKENS, rng)).reshape(50, bs)
    return batches[((np.arange(n_batches) + 0.5) * 50 / n_batches).astype(np.int64)].ravel()


def zipf(n: int, n_types: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`n` ranks below `n_types`, frequent ones first (Zipf-Mandelbrot with the constants of English)."""
    weights = np.cumsum(1.0 / (np.arange(n_types) + 2.7))
    return np.searchsorted(weights, rng.random(n) * weights[-1])


def documents_of(lengths: Lengths, vocabulary_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Ids of documents of those lengths, concatenated, each with xxbos first."""
    special = len(SPECIAL_TOKENS)
    ids = special + zipf(int(lengths.sum()), vocabulary_size - special, rng)
    ids[np.cumsum(lengths) - lengths] = BOS_ID
    return ids


def word(rank: int) -> str:
    """A made-up word; frequent ones are short, and no two are the same."""
    syllables = ""
    while True:
        rank, syllable = divmod(rank, len(_SYLLABLES))
        syllables += _SYLLABLES[syllable]
        if not rank:
            return syllables
        rank -= 1


def vocabulary(size: int) -> list[str]:
    """fastai's special tokens and made-up words."""
    return [*SPECIAL_TOKENS, *(word(rank) for rank in range(size - len(SPECIAL_TOKENS)))]


def reviews(lengths: Lengths, rng: np.random.Generator) -> list[str]:
    """Texts of so many words each."""
    words = np.array([word(rank) for rank in range(TYPES)], dtype=object)[zipf(int(lengths.sum()), TYPES, rng)]
    dice = rng.random(len(words))
    for i in np.flatnonzero(dice < 0.12):  # the end of a sentence or clause, and the beginning of the next
        words[i] += _ENDINGS[int(dice[i] / 0.12 * len(_ENDINGS))]
        if i + 1 < len(words):
            words[i + 1] = words[i + 1].capitalize()
    for i in np.flatnonzero(dice > 0.995):
        words[i] = words[i].upper()
    return [" ".join(part) for part in np.split(words, np.cumsum(lengths)[:-1])]
