"""fastai's text rules, written again so that worker processes need not import fastai (and with it torch).

Every function gives what the rule of the same name in `fastai.text.core` (2.8.12) gives; tests/text hold the two
side by side on real reviews and generated text. `resolve` is the way back.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from pipeline.corpus.cleaning import LONG_RUN_CHARS, has_long_run

SPECIAL_TOKENS = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")
"""fastai's special tokens in fastai's order: the first ids of every vocabulary."""
UNK, PAD, BOS, EOS, FLD, REP, WREP, UP, MAJ = SPECIAL_TOKENS
SPACE = "▁"
"""Stands for a space inside a token."""
MAX_REPEAT = 1000
"""Generated text may ask for any repeat count; `resolve` writes no more than this many."""
MAX_CHUNK_CHARS = LONG_RUN_CHARS
"""A run of more characters without white space is cut into runs of this length before rules and spaCy see it.

Both take quadratic time on such runs, and fastai refuses texts over 1,000,000 characters altogether (spaCy E088).
None of the 100,000 IMDB reviews has one, so parity is not touched."""

_HTML = (
    ("#39;", "'"), ("amp;", "&"), ("#146;", "'"), ("nbsp;", " "), ("#36;", "$"), ("\\n", "\n"), ("quot;", "'"),
    ("<br />", "\n"), ('\\"', '"'), ("<unk>", UNK), (" @.@ ", "."), (" @-@ ", "-"), ("...", " …"),
)
_REP = re.compile(r"(\S)(\1{2,})")
_WREP = re.compile(r"(?:\s|^)(\w+)\s+((?:\1\s+)+)\1(\s|\W|$)")
_SPEC = re.compile(r"([/#\\])")
_SPACES = re.compile(" {2,}")
_ALL_CAPS = re.compile(r"(\s|^)([A-Z][^a-z\s]*)(?=(\s|$))")
_LONG_CHUNK = re.compile(rf"\S{{{MAX_CHUNK_CHARS}}}(?=\S)")
_MAJ = re.compile(r"(\s|^)([A-Z][^A-Z\s]*)(?=(\s|$))")


def fix_html(text: str) -> str:
    """Undo the HTML entities and tokenization marks found in public corpora."""
    for old, new in _HTML:
        text = text.replace(old, new)
    return html.unescape(text)


def replace_rep(text: str) -> str:
    """`cccc` becomes ` xxrep 4 c `."""
    return _REP.sub(lambda m: f" {REP} {len(m[2]) + 1} {m[1]} ", text)


def replace_wrep(text: str) -> str:
    """`word word word` becomes ` xxwrep 3 word `."""
    return _WREP.sub(lambda m: f" {WREP} {len(m[2].split()) + 2} {m[1]} {m[3]}", text)


def has_wrep(text: str) -> bool:
    """True if `replace_wrep` would change `text`."""
    return _WREP.search(text) is not None


def case_rules(text: str) -> str:
    """All rules after `replace_wrep`, but for the leading xxbos: spaces around /#\\, xxup, xxmaj, lower case.

    They look at one word at a time, so a text gives the same in one call as word by word.
    """
    text = _SPACES.sub(" ", _SPEC.sub(r" \1 ", text))
    text = _ALL_CAPS.sub(lambda m: _lower(m, UP), text)
    return _MAJ.sub(lambda m: _lower(m, MAJ), text).lower()


def _lower(match: re.Match[str], mark: str) -> str:
    before, word = match[1], match[2]
    return f"{before}{mark} {word.lower()}" if len(word) > 1 else f"{before}{word.lower()}"


def normalized(text: str, form: str) -> str:
    """`text` in the Unicode normal form `form`: NFC, NFKC, or none for as it is."""
    return text if form == "none" else unicodedata.normalize(form, text)  # type: ignore[arg-type]


def prepare(text: str, form: str = "none") -> str:
    """`normalized`, `fix_html`, ends stripped, overlong chunks cut: a text as the other rules see it.

    NFKC writes `…` as three dots, which `fix_html` makes one again; so it comes first.
    """
    return cut_long_chunks(fix_html(normalized(text, form)).strip())


def prepare_words(text: str, rules: str, form: str = "none") -> str:
    """What the word tokenizer's remaining rules (`rules`: fastai or none) see of `text`."""
    return prepare(text, form) if rules == "fastai" else cut_long_chunks(normalized(text, form))


def cut_long_chunks(text: str) -> str:
    """`text` with a space after every MAX_CHUNK_CHARS characters of a run without white space."""
    return _LONG_CHUNK.sub(r"\g<0> ", text) if has_long_run(text) else text


def apply_rules(text: str) -> str:
    """All of fastai's rules after `prepare`, in its order, without the leading xxbos."""
    return case_rules(replace_wrep(replace_rep(text))).strip()


def resolve(words: Iterable[str]) -> Iterator[str]:
    """Words with the special tokens carried out: `xxmaj`, `xxup` + word, `xxrep 3 a`, `xxwrep 2 no`.

    Tokens without a written form (xxbos, xxpad, ...) are left out; a mark with nothing to act on is ignored.
    """
    queue = list(words)
    at = 0
    case = mark = ""
    count = 1
    while at < len(queue):
        word = queue[at]
        at += 1
        if word in (REP, WREP):
            mark, count = "", 1
            if at < len(queue) and _is_count(queue[at]):
                mark, count = word, min(int(queue[at]), MAX_REPEAT)
                at += 1
        elif word in (UP, MAJ):
            case = word
        elif word == UNK or word not in SPECIAL_TOKENS:
            word = _cased(word, case)
            yield word * count if mark == REP else " ".join([word] * count)
            case, mark, count = "", "", 1


def _is_count(word: str) -> bool:
    return len(word) <= 9 and word.isdecimal()


def _cased(word: str, case: str) -> str:
    if case == UP:
        return word.upper()
    return word[:1].upper() + word[1:] if case == MAJ else word


_NO_SPACE_BEFORE = frozenset(".,;:!?)]}…%") | {"n't", "'s", "'m", "'re", "'ve", "'d", "'ll", "...", "'"}
_NO_SPACE_AFTER = frozenset("([{$#")


def join_words(words: Sequence[str]) -> str:
    """Words and punctuation as running text."""
    parts: list[str] = []
    glue = True
    for word in words:
        blank = word.isspace()
        if not (glue or blank or word in _NO_SPACE_BEFORE or _is_repeat(word, _NO_SPACE_BEFORE)):
            parts.append(" ")
        parts.append(word)
        glue = blank or word in _NO_SPACE_AFTER
    return "".join(parts)


def _is_repeat(word: str, characters: frozenset[str]) -> bool:
    """True for one of `characters` several times, as in `!!!`."""
    return word[:1] in characters and word == word[0] * len(word)
