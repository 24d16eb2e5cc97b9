"""Word tokens of many texts, fast: what a piece of text becomes is looked up, not worked out again.

A piece is what stands between two single spaces. Rules and spaCy look at one piece at a time, with two exceptions that
are found by numpy and sent the plain way, whole text at once: words repeated three times (xxwrep), and pieces that
end and begin with parts of one of spaCy's special cases (its matcher looks across spaces).
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.text.encoding import EncodedBatch, by_first_appearance
from pipeline.text.rules import BOS, SPACE, case_rules, has_wrep, replace_rep

if TYPE_CHECKING:
    from pipeline.text.word import WordTokenizer

MAX_PIECES = 500_000
"""Pieces kept at a time, some 150 MB; beyond that everything is forgotten, spaCy's own string store included."""
PIECES_PER_CALL = 20_000
SEPARATOR = "\x1e"
"""White space to every rule and to spaCy, and in no known text; a text that holds it goes the plain way."""
_split_pieces = re.compile(r" (?<!\s )(?!\s)").split
_ROWS = 7
_FIRST, _LAST, _START, _LENGTH, _TWICE, _END, _BEGIN = range(_ROWS)
"""First and last word of a piece before the case rules; start and length of its tokens in the pool; whether it holds
a word twice running; number of its last and first token among those that spaCy's special cases may join."""


class BatchEncoder:
    """`encode` for one `WordTokenizer`, with its memory of pieces."""

    def __init__(self, tokenizer: "WordTokenizer") -> None:
        self._tokenizer = tokenizer
        self._ends, self._begins, self._linked = _special_links(tokenizer.nlp.tokenizer)
        self._forget()

    @staticmethod
    def fits(tokenizer: "WordTokenizer") -> bool:
        """True if spaCy's tokenizer of the language works piece by piece and no special case holds white space."""
        from spacy.tokenizer import Tokenizer

        inner = tokenizer.nlp.tokenizer
        return type(inner) is Tokenizer and not any(len(rule.split()) > 1 for rule in inner.rules)

    _pieces: dict[str, int]
    """Row of each known piece in `_table`."""
    _table: npt.NDArray[np.int64]
    """What is known of a piece, one column each; rows _FIRST to _BEGIN."""
    _pool: npt.NDArray[np.int64]
    """Tokens of all pieces, end to end."""

    def encode(self, texts: Sequence[str]) -> EncodedBatch:
        """Tokens of `texts`, equal to those of `WordTokenizer.tokenize`."""
        if len(self._pieces) > MAX_PIECES:
            self._renew()
        prepared = [self._tokenizer.prepare(text) for text in texts]
        plain = {i for i, text in enumerate(prepared) if SEPARATOR in text or text != text.strip()}
        pieces: list[str] = []
        n_pieces = np.empty(len(texts), dtype=np.int64)
        for i, text in enumerate(prepared):
            before = len(pieces)
            pieces.append(BOS)
            if text and i not in plain:
                pieces += _split_pieces(text)
            n_pieces[i] = len(pieces) - before
        self._learn([piece for piece in dict.fromkeys(pieces) if piece not in self._pieces])
        ids = np.fromiter(map(self._pieces.__getitem__, pieces), dtype=np.int64, count=len(pieces))
        document = np.repeat(np.arange(len(texts)), n_pieces)
        plain |= self._across_pieces(prepared, ids, document)
        starts = np.cumsum(n_pieces) - n_pieces
        if plain:
            whole = np.array(sorted(plain), dtype=np.int64)
            ids[starts[whole]] = self._remember_whole([prepared[i] for i in whole])
            keep = ~np.isin(document, whole)
            keep[starts[whole]] = True
            ids = ids[keep]
            n_pieces[whole] = 1
            starts = np.cumsum(n_pieces) - n_pieces
        return self._gather(ids, starts)

    def _gather(self, piece_ids: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> EncodedBatch:
        """Tokens of pieces; `starts` are the positions in `piece_ids` where documents begin."""
        n_tokens = self._table[_LENGTH, piece_ids]
        shift = self._table[_START, piece_ids] - (np.cumsum(n_tokens) - n_tokens)
        tokens = self._pool[np.repeat(shift, n_tokens) + np.arange(n_tokens.sum())]
        distinct, ids = by_first_appearance(tokens, len(self._tokens))
        names = list(self._tokens)
        lengths = np.add.reduceat(n_tokens, starts) if len(starts) else np.empty(0, dtype=np.int64)
        return EncodedBatch([names[i] for i in distinct], ids, lengths)

    def _across_pieces(
        self, prepared: list[str], ids: npt.NDArray[np.int64], document: npt.NDArray[np.int64]
    ) -> set[int]:
        """Documents in which neighbouring pieces act on each other."""
        left, right = self._table[:, ids[:-1]], self._table[:, ids[1:]]
        found: set[int] = set()
        if self._tokenizer.rules == "fastai":
            twice = (left[_LAST] == right[_FIRST]) | (right[_TWICE] > 0)
            suspects = np.unique(document[1:][twice])
            found = {int(i) for i in suspects if has_wrep(replace_rep(prepared[i]))}
        found.update(document[1:][self._linked[left[_END], right[_BEGIN]]].tolist())
        return found

    def _learn(self, new: list[str]) -> None:
        for at in range(0, len(new), PIECES_PER_CALL):
            self._learn_block(new[at : at + PIECES_PER_CALL])

    def _learn_block(self, new: list[str]) -> None:
        joined = SEPARATOR.join(new)
        repeated = final = joined
        if self._tokenizer.rules == "fastai":
            repeated = replace_rep(joined)
            final = case_rules(repeated)
        texts = [text.strip(" ") for text in final.split(SEPARATOR)]
        tokens: list[list[str]] = [[]]
        for token in self._tokenizer.nlp.tokenizer(SEPARATOR.join(texts)):
            text = token.text
            if text == SEPARATOR:
                tokens.append([])
            else:
                tokens[-1].append(text)
        rows = np.zeros((_ROWS, len(new)), dtype=np.int64)
        pool: list[int] = []
        for i, (rep, names) in enumerate(zip(repeated.split(SEPARATOR), tokens, strict=True)):
            words = rep.split()
            rows[_FIRST, i], rows[_LAST, i] = self._word_id(words[0]), self._word_id(words[-1])
            rows[_TWICE, i] = len(words) > 1 and any(a == b for a, b in pairwise(words))
            rows[_START, i], rows[_LENGTH, i] = len(self._pool) + len(pool), len(names)
            rows[_END, i], rows[_BEGIN, i] = self._ends.get(names[-1], 0), self._begins.get(names[0], 0)
            pool += [self._token_id(name) for name in names]
            self._pieces[new[i]] = self._table.shape[1] + i
        self._append(rows, pool)

    def _remember_whole(self, prepared: list[str]) -> npt.NDArray[np.int64]:
        """Rows for texts that are tokenized as a whole, to be used once."""
        tokens = [[self._token_id(token) for token in self._tokenizer.tokens_of(text)] for text in prepared]
        rows = np.zeros((_ROWS, len(tokens)), dtype=np.int64)
        rows[_LENGTH] = [len(ids) for ids in tokens]
        rows[_START] = len(self._pool) + np.cumsum(rows[_LENGTH]) - rows[_LENGTH]
        numbers = self._table.shape[1] + np.arange(len(tokens))
        self._append(rows, [i for ids in tokens for i in ids])
        return numbers

    def _append(self, rows: npt.NDArray[np.int64], pool: list[int]) -> None:
        self._table = np.concatenate([self._table, rows], axis=1)
        self._pool = np.concatenate([self._pool, np.asarray(pool, dtype=np.int64)])

    def _token_id(self, token: str) -> int:
        return self._tokens.setdefault(token.replace(" ", SPACE), len(self._tokens))

    def _word_id(self, word: str) -> int:
        return self._words.setdefault(word, len(self._words))

    def _renew(self) -> None:
        from pipeline.text.word import blank_spacy

        self._tokenizer.nlp = blank_spacy(self._tokenizer.language)
        self._forget()

    def _forget(self) -> None:
        self._pieces = {}
        self._words: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._table = np.zeros((_ROWS, 0), dtype=np.int64)
        self._pool = np.zeros(0, dtype=np.int64)


def _special_links(tokenizer: Any) -> tuple[dict[str, int], dict[str, int], npt.NDArray[np.bool_]]:
    """Which pieces spaCy's special-case matcher may join.

    It looks for the tokens of each special case as they are without special cases (`:)` as `:`, `)`), whatever stands
    between them. Returns a number for each token a piece may end with, one for each token it may begin with (0 is any
    other), and linked[end, begin]: True if a match may run from a piece with that end into one with that beginning.
    """
    from spacy.symbols import ORTH
    from spacy.tokenizer import Tokenizer

    bare = Tokenizer(
        tokenizer.vocab, rules={}, prefix_search=tokenizer.prefix_search, suffix_search=tokenizer.suffix_search,
        infix_finditer=tokenizer.infix_finditer, token_match=tokenizer.token_match, url_match=tokenizer.url_match,
    )
    last: dict[str, set[str]] = {}
    first: dict[str, set[str]] = {}
    links: set[tuple[str, str]] = set()
    for rule, tokens in tokenizer.rules.items():
        sought = [token.text for token in bare(rule)]
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
