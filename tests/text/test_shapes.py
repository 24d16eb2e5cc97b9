"""Words of one shape are cut alike: what the shape decides is what spaCy does, in every language it is used for."""

import re
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text import letters
from pipeline.text.letters import Unknown, interchangeable
from pipeline.text.shapes import ALPHABETS, MAX_PARTS, ShapeCutter
from pipeline.text.word import blank_spacy
from pipeline.text.word_batch import without_special_cases

LANGUAGES = ("en", "de", "it", "hu", "ru", "xx")
SPACY = {language: blank_spacy(language).tokenizer for language in LANGUAGES}
SPECIAL = sorted({rule for tokenizer in SPACY.values() for rule in tokenizer.rules if rule.isascii()})
words = st.one_of(
    st.text(ALPHABETS[1], min_size=1, max_size=12),
    st.lists(
        st.sampled_from([*SPECIAL, "'s", "n't", "'", "...", ":)", "co-op", "a.b.com", "x@y.org", "--", "(", "),", "…"])
        | st.text(string.ascii_lowercase, min_size=1, max_size=5),
        min_size=1, max_size=4,
    ).map("".join),
)


def cutter(language: str) -> ShapeCutter:
    """A cutter that has every special case."""
    tokenizer = SPACY[language]
    return ShapeCutter(tokenizer, without_special_cases(tokenizer), list(tokenizer.rules))


CUTTERS = {language: cutter(language) for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
@given(given_words=st.lists(words, max_size=12))
@settings(max_examples=150)
def test_what_a_shape_decides_is_what_spacy_does(language: str, given_words: list[str]) -> None:
    done, counts, tokens, left = CUTTERS[language].cut(given_words)
    assert sorted(done + left) == sorted(given_words)
    assert len(tokens) == sum(counts)
    rest = iter(tokens)
    for word, n_tokens in zip(done, counts, strict=True):
        assert [next(rest) for _ in range(n_tokens)] == [token.text for token in SPACY[language](word)]


def test_most_words_are_decided_and_special_cases_are_not() -> None:
    done, counts, tokens, left = CUTTERS["en"].cut(["film,", "(good)", "can't", "a.m.", "1990", "été", "well-made"])
    assert done == ["film,", "(good)", "well-made"]
    assert counts == [2, 3, 3]
    assert tokens == ["film", ",", "(", "good", ")", "well", "-", "made"]
    assert left == ["1990", "été", "can't", "a.m."]
    assert CUTTERS["en"].cut(["!" * (MAX_PARTS + 1)])[3] == ["!" * (MAX_PARTS + 1)]


def classes(pattern: str, alphabet: str = string.ascii_lowercase + "'.5") -> str:
    """The letters that stand for others, in order."""
    return "".join(sorted(set(interchangeable([re.compile(pattern)], alphabet).values())))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[a-z]+[.]$", "a"), ("'s$", "as"), ("(?<=[0-9])(?:km|m)$", "akm"), ("(?<=[7-9])(?:km|m)$", "a"),
        ("us\\$", "a"), ("(?!q)\\w", "aq"), ("[^c]", "ac"), ("(?:x!)?y", "ay"), ("(?:x!)*.", None), ("(a)\\1", None),
        ("(?i:x)", None), ("^\\b\\S{2,}?$", "a"),
    ],
)
def test_letters_that_patterns_tell_apart(pattern: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(Unknown):
            classes(pattern)
    else:
        assert classes(pattern) == expected


def test_a_pattern_that_ignores_case_is_unknown() -> None:
    with pytest.raises(Unknown):
        interchangeable([re.compile("x", re.IGNORECASE)], "x")


def test_a_function_that_is_no_pattern_leaves_every_word() -> None:
    class Odd:
        """A tokenizer whose affixes are found by a function."""

        prefix_search = suffix_search = infix_finditer = token_match = url_match = staticmethod(lambda text: None)

    odd: Any = Odd()
    assert ShapeCutter(odd, odd, []).cut(["word"]) == ([], [], [], ["word"])


def test_without_pythons_parser_of_patterns_every_word_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "_parser", None)
    assert cutter("en").cut(["film,"]) == ([], [], [], ["film,"])
