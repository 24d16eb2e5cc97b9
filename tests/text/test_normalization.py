"""Unicode normal forms: what each tokenizer makes of them, that they travel with it, and that none changes nothing."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.char import CharTokenizer
from pipeline.text.rules import prepare
from pipeline.text.subword import SubwordTokenizer, train_subword
from pipeline.text.tokenizer import load_tokenizer, save_tokenizer
from pipeline.text.word import WordTokenizer

COMPOSED, DECOMPOSED = "caf\u00e9 \u03ac", "cafe\u0301 \u03b1\u0301"
COMPATIBLE, PLAIN = "\ufb01lm \uff21\uff22 \ufefb", "film AB \u0644\u0627"
"""A ligature, full-width letters and an Arabic presentation form, and what NFKC makes of them."""
PERSIAN = "\u0645\u06cc\u200c\u0631\u0648\u0645"
"""Its zero-width non-joiner is spelling, and SentencePiece's own normalization drops it."""
TEXTS = [COMPOSED, DECOMPOSED, COMPATIBLE, PLAIN, PERSIAN, "film \u03ac caf\u00e9"] * 4


def made(kind: str, form: str, rules: str = "fastai") -> Any:
    if kind == "word":
        return WordTokenizer("xx", rules, form)
    if kind == "char":
        return CharTokenizer(rules, form)
    return train_subword(TEXTS, rules, "bpe", 40, 1.0, normalize=form)[0]


@pytest.mark.parametrize("rules", ["fastai", "none"])
@pytest.mark.parametrize("form", ["NFC", "NFKC"])
@pytest.mark.parametrize("kind", ["word", "char", "subword"])
def test_equal_texts_give_equal_tokens(kind: str, form: str, rules: str) -> None:
    tokenizer = made(kind, form, rules)
    assert tokenizer.tokenize(DECOMPOSED) == tokenizer.tokenize(COMPOSED)
    assert (tokenizer.tokenize(COMPATIBLE) == tokenizer.tokenize(PLAIN)) == (form == "NFKC")
    assert "xxunk" not in tokenizer.tokenize(COMPOSED)
    encoded = tokenizer.encode([DECOMPOSED, COMPATIBLE])
    tokens = [encoded.types[i] for i in encoded.ids]
    assert tokens == [*tokenizer.tokenize(DECOMPOSED), *tokenizer.tokenize(COMPATIBLE)]


@pytest.mark.parametrize("kind", ["word", "char"])
def test_none_leaves_text_as_it_is(kind: str) -> None:
    tokenizer = made(kind, "none")
    assert tokenizer.tokenize(DECOMPOSED) != tokenizer.tokenize(COMPOSED)
    assert tokenizer.normalize == "none"


def test_pieces_keep_what_nfc_keeps_and_nfkc_folds() -> None:
    assert "\u200c" in "".join(made("subword", "NFC").tokenize(PERSIAN))
    assert "\u200c" not in "".join(made("subword", "NFKC").tokenize(PERSIAN))
    assert "xxunk" not in made("subword", "NFC").tokenize("film\tcaf\u00e9\n\u3000film")


def test_three_dots_stay_one_sign_after_nfkc() -> None:
    assert WordTokenizer(normalize="NFKC").tokenize("well … well ...") == WordTokenizer().tokenize("well … well ...")


@pytest.mark.parametrize("kind", ["word", "char", "subword"])
def test_the_form_travels_with_the_tokenizer(tmp_path: Path, kind: str) -> None:
    folded, plain = made(kind, "NFKC"), made(kind, "none")
    save_tokenizer(folded, tmp_path / "folded")
    save_tokenizer(plain, tmp_path / "plain")
    again = load_tokenizer(tmp_path / "folded")
    assert again.normalize == "NFKC"
    assert again.tokenize(COMPATIBLE) == folded.tokenize(COMPATIBLE)
    described = json.loads((tmp_path / "plain/tokenizer.json").read_text(encoding="utf-8"))
    assert "normalize" not in described, "tokenizers that were made before the setting keep their identity"
    assert isinstance(again, SubwordTokenizer) == (kind == "subword")


@given(st.text(), st.sampled_from(["NFC", "NFKC"]))
def test_rules_see_text_in_its_normal_form(text: str, form: str) -> None:
    assert prepare(text, form) == prepare(unicodedata.normalize(form, text))  # type: ignore[arg-type]
    assert prepare(text, "none") == prepare(text)
