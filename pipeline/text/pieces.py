"""Texts cut into pieces at white space, without spaCy: the part of word tokenizing that worker processes do.

Pieces repeat, so a corpus has few distinct ones, and `pipeline.text.word_batch` makes tokens of each once. A piece is
a word of the prepared text, to be put through the rest of the rules. The others are told by their first character,
which is white space to every rule and to spaCy:

- white space between two words, if spaCy has a token for it; a space in it is written as GAP_SPACE;
- FINAL and a word of a text that went through all rules, because it has words repeated three times (xxwrep), the one
  rule that looks across words;
- WHOLE and a text that went through all rules, because it holds one of these marks or has white space at its ends.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count, pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.text.encoding import EncodedBatch
from pipeline.text.rules import BOS, apply_rules, has_wrep, prepare_words, replace_rep

WHOLE, FINAL, GAP_SPACE, SEPARATOR = "\x1c", "\x1d", "\x1e", "\x1f"
"""Marks, and what pieces are joined with to go through a rule at once."""
_MARKS = re.compile("[\x1c-\x1f]")
_GAP = re.compile(r"\s{2,}|[^\S ]")
_SPACES = re.compile(" {2,}")
_PARAGRAPH = "\n\n"


class PieceSplitter:
    """Cuts texts into pieces for word tokenizers with `rules`, whatever the language."""

    def __init__(self, rules: str, normalize: str = "none") -> None:
        self.rules, self.normalize = rules, normalize

    def encode(self, texts: Sequence[str]) -> EncodedBatch:
        """The pieces of `texts`, each text beginning with xxbos. Types may hold a few that no text uses."""
        prepared = [prepare_words(text, self.rules, self.normalize) for text in texts]
        wholes: dict[str, str] = {}
        joined = pa.array([f"{BOS} {self._cut(text, wholes)}" if text else BOS for text in prepared], pa.large_string())
        cut = pc.split_pattern(joined, " ")
        lengths: npt.NDArray[np.int64] = pc.list_value_length(cut).to_numpy(zero_copy_only=False).astype(np.int64)
        encoded = cut.flatten().dictionary_encode()
        ids: npt.NDArray[np.uint32] = encoded.indices.to_numpy().astype(np.uint32)
        names = encoded.dictionary.to_pylist()
        numbers: defaultdict[str, int] = defaultdict(count(len(names)).__next__)
        text_of = {stand_in: WHOLE + text for text, stand_in in wholes.items()}
        numbers.update((text_of.get(name, name), i) for i, name in enumerate(names))
        if self.rules == "fastai" and texts:
            ids = self._put_wrep(prepared, numbers, ids, lengths)
        return EncodedBatch(list(numbers), ids, lengths)

    def _cut(self, text: str, wholes: dict[str, str]) -> str:
        """The pieces of a text that is not empty, a space between two; a stand-in, noted in `wholes`, for a whole."""
        if text[0].isspace() or text[-1].isspace() or _MARKS.search(text):
            whole = apply_rules(text) if self.rules == "fastai" else text
            return wholes.setdefault(whole, f"{WHOLE}{len(wholes)}")
        return _simple(text) or _GAP.sub(self._gap, text)

    def _gap(self, match: re.Match[str]) -> str:
        """White space as a piece between two spaces. The rules make one of several spaces, spaCy drops the first."""
        white = _SPACES.sub(" ", match[0]) if self.rules == "fastai" else match[0]
        white = white.removeprefix(" ").replace(" ", GAP_SPACE)
        return f" {white} " if white else " "

    def _put_wrep(
        self, prepared: Sequence[str], numbers: defaultdict[str, int], ids: npt.NDArray[np.uint32],
        lengths: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.uint32]:
        """`ids` with the pieces of texts that have repeated words replaced by final ones; `lengths` too."""
        ends = np.cumsum(lengths)
        parts = []
        at = 0
        types = list(numbers)
        for i in _suspects(numbers, ids, ends):
            went_through_the_rules = types[ids[ends[i] - 1]][0] == WHOLE
            if lengths[i] == 1 or went_through_the_rules or not has_wrep(replace_rep(prepared[i])):
                continue
            pieces = [BOS, *_final(self._cut(apply_rules(prepared[i]), {}).split(" "))]
            parts += [ids[at : ends[i] - lengths[i]], [numbers[piece] for piece in pieces]]
            at, lengths[i] = int(ends[i]), len(pieces)
        return np.concatenate([*parts, ids[at:]]).astype(np.uint32, copy=False)


def _simple(text: str) -> str:
    """The pieces of a text with single spaces and empty lines only, a space between two; "" for any other text.

    It does what `_GAP` does, several times as fast. A space before an empty line has no token.
    """
    paragraphs = text.split(_PARAGRAPH)
    joined = [" ".join(paragraph.split()) for paragraph in paragraphs]
    last = len(paragraphs) - 1
    for i, (paragraph, words) in enumerate(zip(paragraphs, joined, strict=True)):
        if not words or (words != paragraph and (i == last or f"{words} " != paragraph)):
            return ""
    return f" {_PARAGRAPH} ".join(joined)


def _final(pieces: list[str]) -> list[str]:
    return [piece if piece[0].isspace() else FINAL + piece for piece in pieces]


def _suspects(
    numbers: Mapping[str, int], ids: npt.NDArray[np.uint32], ends: npt.NDArray[np.int64]
) -> list[int]:
    """Texts in which a word may stand twice running once `replace_rep` has cut words such as `sooo` up."""
    types = list(numbers)
    first = np.arange(len(types))
    last = first.copy()
    twice = np.zeros(len(types), dtype=np.bool_)
    others: dict[str, int] = {}
    joined = SEPARATOR.join(piece if piece[0] != WHOLE else "" for piece in types)
    for i, (piece, cut) in enumerate(zip(types, replace_rep(joined).split(SEPARATOR), strict=True)):
        if piece != cut and piece[0] != WHOLE:
            words = cut.split()
            edges = (numbers.get(word, len(types) + others.setdefault(word, len(others))) for word in words)
            first[i], *_, last[i] = edges
            twice[i] = any(one == other for one, other in pairwise(words))
    gap = np.array([piece[0].isspace() for piece in types], dtype=np.bool_)
    words_at = np.flatnonzero(~gap[ids])
    words_only = ids[words_at]
    found = (last[words_only[:-1]] == first[words_only[1:]]) | twice[words_only[1:]]
    return [int(i) for i in np.unique(np.searchsorted(ends, words_at[1:][found], side="right"))]
