"""An n-gram language model: interpolated Kneser-Ney smoothing, counted and scored in arrays.

Kneser and Ney 1995, interpolated as in Chen and Goodman 1999, with one discount per order. nltk.lm has this model, and
a test holds ours to its figures; but it counts continuations anew for every word that it scores, and keeps every
n-gram as a Python object, which is out of reach for corpora of millions of tokens.

Shapes: N tokens, V vocabulary, G different n-grams of one length, R positions that are scored together.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import stopping
from pipeline.ladder.rungs import KNESER_NEY

Ints = NDArray[np.int64]
FALLBACK_DISCOUNT = 0.5
"""Where no n-gram has a count of 1, or none of 2, so that nothing can be estimated (KenLM's --discount_fallback)."""
_BLOCK_ELEMENTS = 2**22
"""Probabilities held at a time."""


@dataclass(frozen=True)
class NGrams:
    """The different n-grams of one length, sorted; an n-gram's number is its place.

    A key is V * (number of the n-gram without its last word) + last word, so that those of one context lie together.
    """

    keys: Ints
    counts: Ints
    """How often each occurs [G]; of lengths below the longest: after how many different words."""
    discount: float

    @cached_property
    def sums(self) -> Ints:
        """Of the counts in front of each n-gram, and of all [G + 1]."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def find(self, keys: Ints) -> Ints:
        """The number of the n-gram with each key, -1 for none."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1)


class KneserNey:
    """P(word | up to order - 1 words before it), backed off to shorter contexts and at last to all words alike."""

    def __init__(self, orders: list[NGrams], vocabulary: int) -> None:
        """`orders` from single words up."""
        self.orders, self.vocabulary = orders, vocabulary

    @classmethod
    def count(
        cls, ids: NDArray[np.integer[Any]], order: int, vocabulary: int, discounts: list[float] | None = None
    ) -> "KneserNey":
        """Count the running text `ids` [N]; without `discounts` they are estimated from it, one per length."""
        words = ids.astype(np.int64)
        numbers = np.zeros(len(words) + 1, dtype=np.int64)  # of the empty context, before each word and after the last
        keys, raw, firsts, ends = [], [], [], []
        for length in range(1, order + 1):
            found, first, inverse, counts = np.unique(
                numbers[:-1] * vocabulary + words[length - 1 :], return_index=True, return_inverse=True,
                return_counts=True,
            )
            numbers = inverse.astype(np.int64)
            keys.append(found)
            raw.append(counts.astype(np.int64))
            firsts.append(first)
            ends.append(numbers)
        for i in range(order - 1):
            # An n-gram is the end of one of the next length, found where that first stands, a word later.
            raw[i] = np.bincount(ends[i][firsts[i + 1] + 1], minlength=len(keys[i])).astype(np.int64)
        used = discounts or [_estimate(counts) for counts in raw]
        return cls([NGrams(k, c, d) for k, c, d in zip(keys, raw, used, strict=True)], vocabulary)

    @property
    def parameters(self) -> int:
        """How many n-grams are counted."""
        return sum(len(one.keys) for one in self.orders)

    def score(self, ids: NDArray[np.integer[Any]]) -> tuple[float, int]:
        """Of the words after the first of a running text [N]: nats in all, and how many were the likeliest word.

        Raises Stopped if a stop was asked for: a long text takes minutes.
        """
        words, nats, hits = ids.astype(np.int64), 0.0, 0
        contexts = self._contexts(words)
        rows = max(1, _BLOCK_ELEMENTS // self.vocabulary)
        for start in range(1, len(words), rows):
            stopping.check(KNESER_NEY)
            here = slice(start, start + rows)
            table = self._probabilities([of_length[here] for of_length in contexts], len(words[here]))
            nats -= float(np.log(table[np.arange(len(table)), words[here]]).sum())
            hits += int((table.argmax(1) == words[here]).sum())
        return nats, hits

    def probabilities(self, context: list[int]) -> NDArray[np.float64]:
        """Of every word of the vocabulary [V] after `context`, of which the last order - 1 words count."""
        words = np.array([*context, 0], dtype=np.int64)
        found: NDArray[np.float64] = self._probabilities([c[-1:] for c in self._contexts(words)], 1)[0]
        return found

    def _contexts(self, words: Ints) -> list[Ints]:
        """For each length of context from 1 on: its number before each of `words` [N], -1 where it was never seen."""
        contexts, before = [], np.zeros(len(words), dtype=np.int64)
        for one in self.orders[:-1]:
            ending = np.where(before >= 0, one.find(before * self.vocabulary + words), -1)
            before = np.concatenate([[-1], ending[:-1]])
            contexts.append(before)
        return contexts

    def _probabilities(self, contexts: list[Ints], n: int) -> NDArray[np.float64]:
        """Of every word after `n` contexts [R, V]; `contexts` are their numbers by length."""
        table = np.tile(self._words_alone, (n, 1))
        for one, numbers in zip(self.orders[1:], contexts, strict=True):
            self._interpolate(table, one, numbers)
        return table

    @cached_property
    def _words_alone(self) -> NDArray[np.float64]:
        """Probabilities after no word [1, V]."""
        table = np.full((1, self.vocabulary), 1.0 / self.vocabulary)
        self._interpolate(table, self.orders[0], np.zeros(1, dtype=np.int64))
        return table

    @staticmethod
    def _interpolate(table: NDArray[np.float64], one: NGrams, numbers: Ints) -> None:
        """Make `table` [R, V], of shorter contexts, that of the contexts with `numbers` [R], -1 for one never seen."""
        seen = np.flatnonzero(numbers >= 0)
        starts, ends = (np.searchsorted(one.keys, (numbers[seen] + after) * table.shape[1]) for after in (0, 1))
        totals = one.sums[ends] - one.sums[starts]
        # A context that stands at the very beginning only follows no word: it says nothing.
        seen, starts, ends, totals = (each[totals > 0] for each in (seen, starts, ends, totals))
        sizes = ends - starts
        at = np.repeat(starts - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes) + np.arange(sizes.sum())
        row = np.repeat(np.arange(len(seen)), sizes)
        kept = np.maximum(one.counts[at] - one.discount, 0.0)
        left = 1.0 - np.bincount(row, kept, minlength=len(seen)) / totals
        factors = np.ones(len(table))
        factors[seen] = left
        table *= factors[:, None]
        table[seen[row], one.keys[at] % table.shape[1]] += kept / totals[row]


def _estimate(counts: Ints) -> float:
    """n1 / (n1 + 2 n2), n1 and n2 being how many n-grams have a count of 1 and 2 (Ney, Essen and Kneser 1994)."""
    ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
    return ones / (ones + 2 * twos) if ones and twos else FALLBACK_DISCOUNT
