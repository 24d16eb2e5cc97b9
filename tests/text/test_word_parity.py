"""Tokens and vocabulary equal fastai's own, on real reviews and on generated text."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.text import rules
from pipeline.text.encoding import EncodedBatch
from pipeline.text.vocabulary import make_vocabulary
from pipeline.text.word import WordTokenizer

WORDS = [
    "a", "no", "very", "Very", "VERY", "The", "USA", "A", "I'm", "can't", "e.g.", "a.m.", "10a.m.", ":)", ":", ")", "(",
    ":(", "8)", "'s", "he", "he's", "'", "''", ".", "...", "....", "!!!", "----", "…", "aaaa", "333", "33333", "#1",
    "w/o", "C:\\x", "<br />", "<br /><br />", "&amp;", "&lt;b&gt;", "&#39;", "quot;", "<unk>", "@.@", "@-@", "xxbos",
    "xxmaj", "Xxup", "http://a.b/c?d=e", "x@y.org", "U.S.A.", "Ünïcödé", "ΟΔΟΣ", "İstanbul", "漢字", "e\u0301",
    "\u0301",
    "\ufeff", "\u00a0", "\u2028", "👍🏽", "nan", "1,000.50", "$5", "o_O", "(-_-)", "co-op", "\x1e", "\x1f", "▁",
]
GAPS = [" ", " ", " ", "  ", "\n", "\n\n", " \n", "\n ", "\t", "", "\r\n"]
generated = st.one_of(
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=25).map(
        lambda pairs: "".join(word + gap for word, gap in pairs)
    ),
    st.text(max_size=60),
    st.text(alphabet=" \nabAB1.:)(/#&;'\\-", max_size=40),
)
quick = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def fastai_core() -> Any:
    import fastai.text.core

    return fastai.text.core


@pytest.fixture(scope="module")
def fastai_tokenize(fastai_core: Any) -> Any:
    tokenizer = fastai_core.TokenizeWithRules(fastai_core.SpacyTokenizer())
    return lambda texts: [list(tokens) for tokens in tokenizer(texts)]


@pytest.fixture(scope="module")
def word() -> WordTokenizer:
    return WordTokenizer()


def documents(batch: EncodedBatch) -> list[list[str]]:
    """The batch as lists of tokens."""
    tokens = np.array(batch.types, dtype=object)[batch.ids]
    return [list(part) for part in np.split(tokens, np.cumsum(batch.lengths)[:-1])]


@pytest.fixture(scope="module")
def reference(reviews: list[str], fastai_tokenize: Any) -> list[list[str]]:
    """fastai's tokens of the reviews."""
    tokens: list[list[str]] = fastai_tokenize(reviews)
    return tokens


def test_batches_equal_fastai_on_real_reviews(
    reviews: list[str], reference: list[list[str]], word: WordTokenizer
) -> None:
    assert documents(word.encode(reviews)) == reference
    assert documents(word.encode(reviews[::-1])) == reference[::-1], "a warm memory of pieces must change nothing"


@pytest.mark.slow
def test_batches_equal_fastai_on_many_real_reviews(
    many_reviews: list[str], fastai_tokenize: Any, word: WordTokenizer
) -> None:
    assert documents(word.encode(many_reviews)) == fastai_tokenize(many_reviews)


def test_single_texts_equal_fastai_on_real_reviews(
    reviews: list[str], reference: list[list[str]], word: WordTokenizer
) -> None:
    assert [word.tokenize(text) for text in reviews[::4]] == reference[::4]


def test_vocabulary_equals_make_vocab(reference: list[list[str]]) -> None:
    from fastai.text.data import make_vocab

    counts = Counter(token for tokens in reference for token in tokens)
    types, numbers = list(counts), np.array(list(counts.values()))
    for min_freq, max_vocab in ((3, 60000), (1, 60000), (2, 1000), (5, 10), (1, len(counts)), (400, 60000)):
        wanted = [token for token in make_vocab(counts, min_freq, max_vocab) if token != "xxfake"]
        assert make_vocabulary(types, numbers, min_freq, max_vocab) == wanted


def test_rules_equal_fastai_on_real_reviews(reviews: list[str], fastai_core: Any) -> None:
    for text in reviews:
        wanted = text
        for rule in fastai_core.defaults.text_proc_rules:
            wanted = rule(wanted)
        assert f"xxbos {rules.apply_rules(rules.prepare(text))}" == wanted


@quick
@given(text=generated)
def test_rules_equal_fastai_on_generated_text(text: str, fastai_core: Any) -> None:
    assert rules.fix_html(text) == fastai_core.fix_html(text)
    assert rules.replace_rep(text) == fastai_core.replace_rep(text)
    assert rules.replace_wrep(text) == fastai_core.replace_wrep(text)
    wanted = text
    for rule in fastai_core.defaults.text_proc_rules:
        wanted = rule(wanted)
    assert f"xxbos {rules.apply_rules(rules.prepare(text))}" == wanted


@quick
@given(texts=st.lists(generated, min_size=1, max_size=6))
def test_tokens_equal_fastai_on_generated_text(texts: list[str], word: WordTokenizer, fastai_tokenize: Any) -> None:
    wanted = fastai_tokenize(texts)
    assert documents(word.encode(texts)) == wanted
    assert [word.tokenize(text) for text in texts] == wanted


@quick
@given(texts=st.lists(generated, min_size=1, max_size=4))
def test_without_rules_tokens_are_those_of_spacy(texts: list[str], raw: WordTokenizer) -> None:
    wanted = [["xxbos", *(t.text.replace(" ", "▁") for t in raw.nlp.tokenizer(text))] for text in texts]
    assert documents(raw.encode(texts)) == wanted


@pytest.mark.parametrize("language", ["de", "fr", "hu"])
@settings(quick, max_examples=50)
@given(texts=st.lists(generated, min_size=1, max_size=4))
def test_other_languages_in_batches_equal_single_texts(language: str, texts: list[str]) -> None:
    word = OTHERS.setdefault(language, WordTokenizer(language))
    assert documents(word.encode(texts)) == [word.tokenize(text) for text in texts]


OTHERS: dict[str, WordTokenizer] = {}


@pytest.fixture(scope="module")
def raw() -> WordTokenizer:
    return WordTokenizer(rules="none")
