"""T7: what cleaning does to any text there is."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.corpus.cleaning import COUNTED, LONG_RUN_CHARS, clean_name, clean_text
from pipeline.text.rules import MAX_CHUNK_CHARS, SPECIAL_TOKENS

ODD = st.sampled_from([
    "\ufeff", "\0", "\r\n", "\r", "\n", "\u2028", "\x1b[2J", "\x7f", "\x9b", "\u202e", "\u200d", "\u0301", "\ud800",
    "\udcff", "xxbos", "xxrep 3 a", "nan", "NULL", "None", " ", "\u05d0\u05d1",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "<script>", "x" * 1200,
])
TEXTS = st.lists(ODD | st.text(max_size=5), max_size=12).map("".join)


@given(TEXTS | st.binary(max_size=60))
@example("\ufeff\ufeff\ufeff")
@example(b"\xef\xbb\xbf\xef\xbb\xbftwo marks")
@example("\ufeff \r\n")
@settings(max_examples=250)
def test_clean_text_is_storable_and_stays_as_it_is(raw: str | bytes) -> None:
    counts = Counter[str]()
    text = clean_text(raw, counts)
    assert set(counts) <= set(COUNTED)
    assert set(counts.values()) <= {1}, "documents are counted, not characters"
    if text is None:
        assert counts["empty"] + counts["blank"] == 1
        return
    assert text.encode("utf-8").decode("utf-8") == text
    assert not {"\0", "\r"} & set(text)
    assert not text.startswith("\ufeff")
    again = Counter[str]()
    assert clean_text(text, again) == text
    assert set(again) <= {"control_characters", "special_tokens", "long_runs"}, "mended once and for all"


@given(TEXTS)
@settings(max_examples=150)
def test_text_and_its_utf8_are_the_same_document(text: str) -> None:
    valid = text.encode("utf-8", "replace").decode("utf-8")
    as_text, as_bytes = Counter[str](), Counter[str]()
    assert clean_text(valid, as_text) == clean_text(valid.encode(), as_bytes)
    assert as_text == as_bytes


@given(TEXTS)
@settings(max_examples=150)
def test_names_are_fit_to_be_shown(name: str) -> None:
    cleaned = clean_name(name)
    assert cleaned == cleaned.strip() == clean_name(cleaned)
    assert not any(c < " " or "\x7f" <= c <= "\x9f" or c in "\u202e\u2028\u2066" for c in cleaned)
    assert cleaned.encode().decode() == cleaned


POLICY = {
    "": None, "\ufeff": None, " \n\t": None, "\u2003\x1f": None, "nan": "nan", "NULL": "NULL", "None": "None",
    "a\0b": "a\ufffdb", "a\r\nb\rc": "a\nb\nc", "\ud800x": "\ufffdx", "\ufeffmark": "mark",
    "in\ufeffside": "in\ufeffside",
    "\x1b[2Jclear": "\x1b[2Jclear", "page\x0cbreak": "page\x0cbreak", "xxbos xxunk": "xxbos xxunk",
    "\u05e9\u05dc\u05d5\u05dd \u202eright": "\u05e9\u05dc\u05d5\u05dd \u202eright", "e\u0301\u0301": "e\u0301\u0301",
    "\U0001f468\u200d\U0001f469": "\U0001f468\u200d\U0001f469",
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    "\u200b": "\u200b",
}
COUNT = {
    "": "empty", "\ufeff": "bom empty", " \n\t": "blank", "\u2003\x1f": "blank", "a\0b": "nul",
    "a\r\nb\rc": "line_ends",
    "\ud800x": "surrogates", "\ufeffmark": "bom", "\x1b[2Jclear": "control_characters",
    "page\x0cbreak": "control_characters", "xxbos xxunk": "special_tokens",
}


@pytest.mark.parametrize("raw", POLICY, ids=ascii)
def test_every_odd_document_has_its_policy(raw: str) -> None:
    counts = Counter[str]()
    assert clean_text(raw, counts) == POLICY[raw]
    assert sorted(counts) == sorted(COUNT.get(raw, "").split())


def test_every_special_token_is_counted_and_no_word_is() -> None:
    for token in SPECIAL_TOKENS:
        counts = Counter[str]()
        clean_text(f"a {token}, b", counts)
        assert counts == {"special_tokens": 1}
    counts = Counter[str]()
    clean_text("xxl boxxbos xxbosses xx", counts)
    assert not counts


@given(st.integers(0, 1500), st.integers(0, 1500), st.integers(900, 1100))
@settings(max_examples=100)
def test_long_runs_are_found_wherever_they_stand(before: int, after: int, length: int) -> None:
    counts = Counter[str]()
    text = " ".join(["a b" * before, "x" * length, "c d" * after])
    assert clean_text(text, counts) == text
    assert counts["long_runs"] == (length > LONG_RUN_CHARS)
    assert LONG_RUN_CHARS == MAX_CHUNK_CHARS
