"""Word tokens of many texts, fast: what a piece of text becomes is looked up, not worked out again.

Rules and spaCy look at one word at a time, with two exceptions: words repeated three times, which
`pipeline.text.pieces` has dealt with, and words that end and begin with parts of one of spaCy's special cases (its
matcher looks across spaces). Those are found by numpy and go through spaCy together.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import count, filterfalse, pairwise, repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.text.encoding import EncodedBatch, by_first_appearance
from pipeline.text.pieces import FINAL, GAP_SPACE, SEPARATOR, WHOLE
from pipeline.text.rules import SPACE, case_rules, replace_rep
from pipeline.text.shapes import ShapeCutter, cut_words

if TYPE_CHECKING:
    from pipeline.text.word import WordTokenizer

MAX_PIECES = 500_000
"""Pieces kept at a time, some 200 MB; beyond that everything is forgotten, spaCy's own string store included."""
MAX_TOKENS = 10_000_000
"""Tokens of the pieces kept, which may be whole texts: some 100 MB with them; likewise."""
WORDS_PER_CALL = 20_000
Numbers = npt.NDArray[np.int64]
Integers = npt.NDArray[np.signedinteger]


class BatchEncoder:
    """Makes tokens of the pieces of texts for one `WordTokenizer`, with its memory of pieces and words."""

    def __init__(self, tokenizer: "WordTokenizer") -> None:
        self._tokenizer = tokenizer
        self._prepare()

    @staticmethod
    def fits(tokenizer: "WordTokenizer") -> bool:
        """True if spaCy's tokenizer of the language works word by word and no special case holds white space."""
        inner = tokenizer.nlp.tokenizer

        from spacy.tokenizer import Tokenizer  # after `nlp`, which keeps torch out

        return type(inner) is Tokenizer and not any(len(rule.split()) > 1 for rule in inner.rules)

    def encode(self, pieces: EncodedBatch) -> EncodedBatch:
        """Tokens of the texts that `pieces` were cut from, equal to those of `WordTokenizer.tokenize`."""
        if len(self._pieces) > MAX_PIECES or self._runs.used > MAX_TOKENS:
            self._renew()
        self._learn(list(filterfalse(self._pieces.__contains__, pieces.types)))
        known = np.fromiter(map(self._pieces.__getitem__, pieces.types), np.int64, len(pieces.types))
        ids = pieces.ids.astype(np.intp)
        rows, lengths, runs = known[ids], pieces.lengths, self._runs
        # Few pieces can act on the next one, so the others are left out first.
        before = np.flatnonzero((runs.column(_WIDER)[known] > 0)[ids[:-1]])
        before = before[runs.column(_SPACED)[rows[before + 1]] > 0]
        rows[before] = runs.column(_WIDER)[rows[before]]
        linked = np.flatnonzero((runs.column(_END)[known] > 0)[ids[:-1]])
        linked = linked[self._linked[runs.column(_END)[rows[linked]], runs.column(_BEGIN)[rows[linked + 1]]]]
        if len(linked):
            rows, lengths = self._join_linked(pieces, rows, linked)
        tokens, n_tokens = runs.tokens(rows)
        distinct, numbers = by_first_appearance(tokens, len(self._tokens))
        names = list(self._tokens)
        starts = np.cumsum(lengths) - lengths
        n_tokens = np.add.reduceat(n_tokens, starts) if len(starts) else n_tokens
        return EncodedBatch([names[i] for i in distinct], numbers, n_tokens)

    def _join_linked(
        self, pieces: EncodedBatch, rows: Numbers, linked: Numbers
    ) -> tuple[Numbers, Numbers]:
        """Rows and lengths with every chain of pieces as one piece; those at `linked` are linked to the next one."""
        firsts = linked[np.diff(linked, prepend=-2) > 1]
        lasts = linked[np.diff(linked, append=len(rows) + 1) > 1] + 1
        names = [
            " ".join(pieces.types[i] for i in pieces.ids[a : b + 1]) for a, b in zip(firsts, lasts, strict=True)
        ]
        self._learn_chains(list(filterfalse(self._pieces.__contains__, dict.fromkeys(names))))
        rows[firsts] = [self._pieces[name] for name in names]
        keep = np.ones(len(rows), dtype=np.bool_)
        keep[linked + 1] = False
        document = np.repeat(np.arange(len(pieces.lengths)), pieces.lengths)
        return rows[keep], np.bincount(document[keep], minlength=len(pieces.lengths))

    def _learn(self, new: list[str]) -> None:
        """Put pieces into the memory."""
        plain: list[str] = []
        marked: list[str] = []
        for piece in new:
            (marked if piece[0].isspace() else plain).append(piece)
        final = [piece for piece in marked if piece[0] == FINAL]
        whole = [piece for piece in marked if piece[0] == WHOLE]
        gaps = [piece for piece in marked if piece[0] not in (FINAL, WHOLE)]
        self._learn_words(plain + final, [*self._ruled(plain), *(piece[1:] for piece in final)])
        self._learn_texts(whole, [piece[1:] for piece in whole])
        white = [gap.replace(GAP_SPACE, SPACE) for gap in gaps]
        # A rule that puts a space before the next word makes this one longer, if it does not end with one.
        wider = [text if text.endswith(SPACE) else text + SPACE for text in white]
        one_each = [1] * len(gaps)
        rows = self._append(self._runs, white, one_each, wider=self._append(self._runs, wider, one_each))
        self._pieces.update(zip(gaps, rows.tolist(), strict=True))

    def _ruled(self, pieces: Sequence[str]) -> list[str]:
        if self._tokenizer.rules != "fastai" or not pieces:
            return list(pieces)
        return case_rules(replace_rep(SEPARATOR.join(pieces))).split(SEPARATOR)

    def _learn_words(self, pieces: list[str], texts: list[str]) -> None:
        """`texts`: what the rules make of the pieces, one or several words each."""
        if not pieces:
            return
        words = " ".join(texts).split()
        self._learn_new_words(list(filterfalse(self._words.__contains__, dict.fromkeys(words))))
        numbers = np.fromiter(map(self._words.__getitem__, words), np.int64, len(words))
        stripped = map(str.strip, texts, repeat(" "))
        # The rules leave single spaces.
        ends = np.cumsum(np.fromiter(map(str.count, stripped, repeat(" ")), np.int64, len(texts)) + 1)
        starts = np.concatenate([[0], ends[:-1]])
        known = self._word_runs
        tokens, n_tokens = known.tokens(numbers)
        rows = self._runs.append(
            np.add.reduceat(n_tokens, starts), tokens,
            end=known.column(_END)[numbers[ends - 1]], begin=known.column(_BEGIN)[numbers[starts]],
            spaced=np.fromiter(map(str.startswith, texts, repeat(" ")), np.int64, len(texts)),
        )
        self._pieces.update(zip(pieces, rows.tolist(), strict=True))
        linked = self._linked[known.column(_END)[numbers[:-1]], known.column(_BEGIN)[numbers[1:]]]
        linked[ends[:-1] - 1] = False
        inside = np.unique(np.searchsorted(ends, np.flatnonzero(linked), side="right"))
        self._learn_texts([pieces[i] for i in inside], [texts[i] for i in inside])

    def _learn_chains(self, names: list[str]) -> None:
        plain = [name for name in names if name[0] != FINAL]
        self._learn_texts(plain, self._ruled(plain))
        final = [name for name in names if name[0] == FINAL]
        self._learn_texts(final, [name.removeprefix(FINAL).replace(f" {FINAL}", " ") for name in final])

    def _learn_texts(self, names: list[str], texts: list[str]) -> None:
        """Remember texts that spaCy must see as a whole."""
        cut = self._tokenizer.nlp.tokenizer
        for name, text in zip(names, texts, strict=True):
            tokens = [
                token.text.replace(" ", SPACE) for token in cut(text if name[0] == WHOLE else text.strip(" "))
            ]
            spaced = np.array([text[0] == " "], dtype=np.int64)
            self._pieces[name] = int(self._append(self._runs, tokens, [len(tokens)], spaced=spaced)[0])

    def _learn_new_words(self, words: list[str]) -> None:
        done, counts, tokens, left = self._shapes.cut(words)
        for at in range(0, len(left), WORDS_PER_CALL):
            some = left[at : at + WORDS_PER_CALL]
            found = [token.text for token in self._tokenizer.nlp.tokenizer(SEPARATOR.join(some))]
            ends = [i for i, token in enumerate(found) if token == SEPARATOR]
            done += some
            counts += [b - a - 1 for a, b in pairwise([-1, *ends, len(found)])]
            tokens += [token for token in found if token != SEPARATOR]
        rows = self._append(self._word_runs, tokens, counts)
        self._words.update(zip(done, rows.tolist(), strict=True))

    def _append(self, runs: "_Runs", tokens: list[str], counts: list[int], **flags: Numbers) -> Numbers:
        """Rows for runs of `counts` tokens, which stand end to end."""
        pool = np.fromiter(map(self._tokens.__getitem__, tokens), np.int64, len(tokens))
        lengths = np.array(counts, dtype=np.int64)
        ends = np.cumsum(lengths)
        return runs.append(
            lengths, pool, end=_look_up(self._ends, pool[ends - 1]), begin=_look_up(self._begins, pool[ends - lengths]),
            **flags,
        )

    def _renew(self) -> None:
        from pipeline.text.word import blank_spacy

        self._tokenizer.nlp = blank_spacy(self._tokenizer.language)
        self._prepare()

    def _prepare(self) -> None:
        inner = self._tokenizer.nlp.tokenizer

        from spacy.symbols import ORTH  # after `nlp`, which keeps torch out

        bare = without_special_cases(inner)
        rules = [rule for rule in inner.rules if not rule.isspace()]
        without = dict(zip(rules, cut_words(bare, rules), strict=True))
        ends, begins, self._linked = _special_links(inner, without)
        self._tokens: defaultdict[str, int] = defaultdict(count().__next__)
        for token in (*ends, *begins):
            self._tokens[token]  # the first numbers, so that a look-up needs a short array only
        self._ends = np.array([ends.get(token, 0) for token in self._tokens] + [0])
        self._begins = np.array([begins.get(token, 0) for token in self._tokens] + [0])
        differing = [rule for rule in rules if [token[ORTH] for token in inner.rules[rule]] != without[rule]]
        self._shapes = ShapeCutter(inner, bare, differing)
        self._pieces: dict[str, int] = {}
        self._words: dict[str, int] = {}
        self._runs, self._word_runs = _Runs(), _Runs()


_START, _LENGTH, _END, _BEGIN, _SPACED, _WIDER = range(6)


class _Runs:
    """Runs of token numbers, one a row.

    Columns: start and length of the run in the pool; number of its last and first token among those that spaCy's
    special cases may join; whether a space stands before it; the row to take before one with a space (0: this one).
    """

    def __init__(self) -> None:
        self._rows = 1  # row 0 is no run
        self.used = 0
        """Tokens of all runs."""
        self._table = np.zeros((_WIDER + 1, 1024), dtype=np.int32)
        self._pool = np.zeros(1024, dtype=np.int32)

    def column(self, number: int) -> npt.NDArray[np.int32]:
        """One column for all rows."""
        return self._table[number]

    def append(
        self, lengths: Numbers, tokens: Numbers, *, end: Integers, begin: Integers, spaced: Numbers | None = None,
        wider: Numbers | None = None,
    ) -> Numbers:
        """Add runs whose tokens stand end to end; their rows."""
        rows = np.arange(self._rows, self._rows + len(lengths))
        self._rows += len(lengths)
        self._table = _with_room(self._table, self._rows)
        starts = self.used + np.cumsum(lengths) - lengths
        for number, values in enumerate((starts, lengths, end, begin, spaced, wider)):
            if values is not None:
                self._table[number, rows] = values
        self._pool = _with_room(self._pool, self.used + len(tokens))
        self._pool[self.used : self.used + len(tokens)] = tokens
        self.used += len(tokens)
        return rows

    def tokens(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """The tokens of `rows`, end to end, and the length of each."""
        lengths = self._table[_LENGTH, rows].astype(np.int64)
        shift = self._table[_START, rows] - (np.cumsum(lengths) - lengths)
        return self._pool[np.repeat(shift, lengths) + np.arange(lengths.sum())].astype(np.int64), lengths


def _look_up(numbers: Numbers, tokens: Numbers) -> Numbers:
    """The number of each token; the last, which is 0, for tokens without one."""
    return numbers[np.minimum(tokens, len(numbers) - 1)]


def _with_room(array: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.int32]:
    """`array`, or a longer one with the same beginning, for at least `size` numbers (a row)."""
    have = array.shape[-1]
    if size <= have:
        return array
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, max(size, 2 * have) - have)])


def without_special_cases(tokenizer: Any) -> Any:
    """A spaCy Tokenizer with the patterns of `tokenizer` alone."""
    from spacy.tokenizer import Tokenizer

    return Tokenizer(
        tokenizer.vocab, rules={}, prefix_search=tokenizer.prefix_search, suffix_search=tokenizer.suffix_search,
        infix_finditer=tokenizer.infix_finditer, token_match=tokenizer.token_match, url_match=tokenizer.url_match,
    )


def _special_links(
    tokenizer: Any, without: dict[str, list[str]]
) -> tuple[dict[str, int], dict[str, int], npt.NDArray[np.bool_]]:
    """Which pieces spaCy's special-case matcher may join.

    It looks for the tokens of each special case as they are without special cases (`:)` as `:`, `)`), whatever stands
    between them. Returns a number for each token a piece may end with, one for each token it may begin with (0 is any
    other), and linked[end, begin]: True if a match may run from a piece with that end into one with that beginning.
    """
    from spacy.symbols import ORTH

    last: dict[str, set[str]] = {}
    first: dict[str, set[str]] = {}
    links: set[tuple[str, str]] = set()
    for rule, sought in without.items():
        tokens = tokenizer.rules[rule]
        if len(sought) < 2:
            continue
        links.update(pairwise(sought))
        # A piece in which the matcher has already put in the special case shows other tokens at its ends.
        last.setdefault(tokens[-1][ORTH], set()).add(sought[-1])
        first.setdefault(tokens[0][ORTH], set()).add(sought[0])
    for left, right in links:
        last.setdefault(left, set()).add(left)
        first.setdefault(right, set()).add(right)
    ends = {token: i for i, token in enumerate(sorted(last), 1)}
    begins = {token: i for i, token in enumerate(sorted(first), 1)}
    linked = np.zeros((len(ends) + 1, len(begins) + 1), dtype=np.bool_)
    for end, i in ends.items():
        for begin, j in begins.items():
            linked[i, j] = any((left, right) in links for left in last[end] for right in first[begin])
    return ends, begins, linked
