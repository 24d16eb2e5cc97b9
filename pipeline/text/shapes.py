"""Words of one shape are cut alike: `word,` like `film,`, because spaCy's patterns tell most letters not apart.

`pipeline.text.letters` reads from the patterns themselves which letters they do. So a few thousand shapes stand for
most words of a corpus, however many those are; spaCy's special cases, which are whole words, are looked up for each.
"""

import re
import string
from collections.abc import Collection, Sequence
from itertools import accumulate, compress, filterfalse, pairwise
from operator import not_
from typing import Any

from pipeline.text.letters import Unknown, interchangeable

_NO_APOSTROPHE = string.ascii_lowercase + string.punctuation.replace("'", "") + "…"
ALPHABETS = (_NO_APOSTROPHE, _NO_APOSTROPHE + "'")
"""What a word with a shape is made of. Suffixes such as 's tell letters apart, but only behind an apostrophe."""
MAX_PARTS = 6
"""Words of more parts are left to spaCy: every run of parts must be looked up among the special cases."""


class ShapeCutter:
    """Cuts words into tokens as `tokenizer`, a spaCy Tokenizer, does, as far as their shape decides."""

    def __init__(self, tokenizer: Any, bare: Any, special_cases: Collection[str]) -> None:
        """`bare`: the same without special cases; `special_cases`: those that it cuts otherwise."""
        self._bare, self._special_cases = bare, frozenset(special_cases)
        self._alphabets: list[tuple[Any, dict[int, str]]] = []
        for alphabet in ALPHABETS:
            try:
                letters = interchangeable(_patterns(tokenizer), alphabet)
            except Unknown:
                continue
            self._alphabets.append((re.compile(f"[{re.escape(alphabet)}]+").fullmatch, letters))
        self._shapes: dict[str, tuple[list[slice], list[slice]]] = {}

    def cut(self, words: Sequence[str]) -> tuple[list[str], list[int], list[str], list[str]]:
        """The words that are cut, the number of tokens of each, all these tokens, and the words left over because
        their shape does not decide."""
        special_cases, shapes = self._special_cases, self._shapes
        done: list[str] = []
        counts: list[int] = []
        tokens: list[str] = []
        for fits, letters in self._alphabets:
            fit = [fits(word) is not None for word in words]
            fitting = list(compress(words, fit))
            left = list(compress(words, map(not_, fit)))
            found = " ".join(fitting).translate(letters).split()
            self._learn(list(filterfalse(shapes.__contains__, dict.fromkeys(found))))
            for word, shape in zip(fitting, found, strict=True):
                parts, runs = shapes[shape]
                if len(parts) == 1 and word not in special_cases:
                    tokens.append(word)
                elif parts and special_cases.isdisjoint([word[run] for run in runs]):
                    tokens += [word[part] for part in parts]
                else:
                    left.append(word)
                    continue
                done.append(word)
                counts.append(len(parts))
            words = left
        return done, counts, tokens, list(words)

    def _learn(self, shapes: list[str]) -> None:
        """Where the tokens of words of these shapes lie, and all runs of them; nothing if they are too many."""
        for shape, tokens in zip(shapes, cut_words(self._bare, shapes), strict=True):
            ends = list(accumulate(map(len, tokens), initial=0)) if len(tokens) <= MAX_PARTS else []
            parts = [slice(a, b) for a, b in pairwise(ends)]
            self._shapes[shape] = parts, [slice(a, b) for i, a in enumerate(ends) for b in ends[i + 1 :]]


def cut_words(bare: Any, words: Sequence[str]) -> list[list[str]]:
    """The tokens of words without white space, by a spaCy Tokenizer without special cases, in one call."""
    tokens = iter(bare(" ".join(words)))
    found = []
    for word in words:
        found.append([next(tokens).text])
        size = len(found[-1][0])
        while size < len(word):
            found[-1].append(next(tokens).text)
            size += len(found[-1][-1])
    return found


def _patterns(tokenizer: Any) -> list[re.Pattern[str]]:
    """All patterns that decide how a word is cut. Raises Unknown if one of them is something else."""
    functions = (
        tokenizer.prefix_search, tokenizer.suffix_search, tokenizer.infix_finditer, tokenizer.token_match,
        tokenizer.url_match,
    )
    patterns = [getattr(function, "__self__", None) for function in functions if function is not None]
    found = [pattern for pattern in patterns if isinstance(pattern, re.Pattern)]
    if len(found) < len(patterns):
        raise Unknown
    return found
