"""Subword and character tokenizers, and the way back to text."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import DataError, InputError
from pipeline.text import subword, word, word_batch
from pipeline.text.char import CharTokenizer
from pipeline.text.rules import MAX_CHUNK_CHARS, MAX_REPEAT, resolve
from pipeline.text.subword import SubwordTokenizer, train_subword
from pipeline.text.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from pipeline.text.word import WordTokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog. WOW, it jumps AGAIN and again!!!",
    "She sells sea shells by the sea shore; the shells she sells are sea shells.",
    "Peter Piper picked a peck of pickled peppers. Sooo many no no no no peppers.",
]


def train(
    texts: list[str], vocab_size: int = 60, model_type: str = "unigram", rules: str = "fastai"
) -> SubwordTokenizer:
    """A subword tokenizer that has seen all of `texts`."""
    tokenizer, share = train_subword(texts, rules, model_type, vocab_size, 0.99999)
    assert (share.documents, share.bytes) == (1.0, 1.0)
    return tokenizer


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_subword_training_gives_the_same_bytes_again(model_type: str) -> None:
    assert train(TEXTS, model_type=model_type)._model == train(TEXTS, model_type=model_type)._model


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_special_tokens_stay_whole_and_the_text_comes_back(model_type: str) -> None:
    tokenizer = train(TEXTS, model_type=model_type)
    tokens = tokenizer.tokenize("WOW, Peter jumps!!! no no no no 漢")
    assert tokens[0] == "xxbos"
    assert {"xxup", "xxmaj", "xxrep", "xxwrep", "xxunk"} <= set(tokens)
    assert tokenizer.detokenize(tokens) == "WOW, Peter jumps !!! no no no no xxunk"


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_every_document_reaches_sentencepiece(
    model_type: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subword, "LOG_ERRORS_ONLY", 0)
    long_document = " ".join(TEXTS) * 400
    long_word = "ab" * 5 * MAX_CHUNK_CHARS
    train([*TEXTS, long_document, long_word, "tabs\tand\nlines", ""], model_type=model_type)
    log = capfd.readouterr().err
    assert "Loaded all" in log
    assert "Skipped" not in log
    assert "Too long" not in log


def test_training_writes_nothing_into_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train(TEXTS)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("model_type", "vocab_size", "word"), [
    ("unigram", 5000, "large"), ("bpe", 5000, "large"), ("unigram", 16, "small"), ("bpe", 16, "small"),
])
def test_the_nearest_possible_size_is_named_and_works(model_type: str, vocab_size: int, word: str) -> None:
    with pytest.raises(DataError, match=f"vocab_size {vocab_size} is too {word} for this text") as error:
        train(TEXTS, vocab_size, model_type)
    nearest = int(error.value.mend.split("vocab_size=")[1].split()[0])
    assert train(TEXTS, nearest, model_type).n_pieces == nearest


def test_text_without_words_trains_nothing() -> None:
    with pytest.raises(DataError, match="holds no words"):
        train_subword(["", " \n"], "fastai", "unigram", 100, 0.9999)


def test_characters_with_special_tokens_kept_whole() -> None:
    char = CharTokenizer()
    assert char.tokenize("Hi a no no no") == ["xxbos", "xxmaj", *"hi▁a▁", "xxwrep", *"3▁no"]
    assert char.tokenize("") == ["xxbos"]
    assert char.detokenize(char.tokenize("Hi a no no no\n\nWOW yesss")) == "Hi a no no no \n\nWOW ye sss"
    assert CharTokenizer("none").tokenize("Hi\n x") == ["xxbos", *"Hi\n▁x"]


def test_words_come_back_as_readable_text() -> None:
    word = WordTokenizer()
    text = "It's GREAT, isn't it? (See it!)\n\nNo no no no. Wow!!!"
    assert word.detokenize(word.tokenize(text)) == "It's GREAT, isn't it? (see it!)\n\nNo no no no. Wow!!!"
    assert word.detokenize(word.tokenize("So Very Very Very GOOD GOOD GOOD...")) == "So Very Very Very GOOD GOOD GOOD…"


def test_marks_with_nothing_to_act_on_are_ignored() -> None:
    assert list(resolve(["xxmaj"])) == []
    assert list(resolve(["xxrep", "x", "y", "xxrep"])) == ["xxrep", "x", "y", "xxrep"][1:3]
    assert list(resolve(["xxbos", "xxup", "xxrep", "3", "a", "xxpad"])) == ["AAA"]
    assert list(resolve(["xxrep", "999999999", "a"])) == ["a" * MAX_REPEAT]
    assert list(resolve(["xxrep", "9" * 5000, "a"])) == ["9" * 5000, "a"]
    assert list(resolve(["xxrep", "3", "xxrep", "4", "a"])) == ["aaaa"]
    assert list(resolve(["xxwrep", "3", "xxmaj"])) == []


@pytest.mark.parametrize("kind", ["word", "subword", "char"])
@pytest.mark.parametrize("rules", ["fastai", "none"])
def test_a_loaded_tokenizer_is_the_one_saved(tmp_path: Path, kind: str, rules: str) -> None:
    tokenizer: Tokenizer
    if kind == "subword":
        tokenizer = train(TEXTS, rules=rules)
    else:
        tokenizer = WordTokenizer("en", rules) if kind == "word" else CharTokenizer(rules)
    save_tokenizer(tokenizer, tmp_path / "a folder")
    loaded = load_tokenizer(tmp_path / "a folder")
    assert (loaded.kind, loaded.rules) == (kind, rules)
    assert [loaded.tokenize(text) for text in TEXTS] == [tokenizer.tokenize(text) for text in TEXTS]


def test_damaged_tokenizers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(InputError, match="is missing or damaged"):
        load_tokenizer(tmp_path)
    path.write_text('{"kind": "word"}', encoding="utf-8")
    with pytest.raises(InputError, match="is missing or damaged: KeyError"):
        load_tokenizer(tmp_path)
    save_tokenizer(CharTokenizer(), tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"char"', '"morse"'), encoding="utf-8")
    with pytest.raises(InputError, match="kind 'morse'"):
        load_tokenizer(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"morse"', '"subword"'), encoding="utf-8")
    with pytest.raises(InputError, match="is missing or damaged: KeyError 'sha256'"):
        load_tokenizer(tmp_path)


def test_another_spacy_is_told(tmp_path: Path) -> None:
    import spacy

    save_tokenizer(WordTokenizer(), tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace(spacy.__version__, "1.2.3"), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"was made with spaCy 1\.2\.3"):
        load_tokenizer(tmp_path)


def test_word_batches_forget_when_they_know_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_batch, "MAX_PIECES", 10)
    word = WordTokenizer()
    for text in TEXTS:
        batch = word.encode([text])
        assert [batch.types[i] for i in batch.ids] == word.tokenize(text)
    assert {"Peter", "peppers."} < set(word._batch._pieces)
    assert not {"brown", "shells"} & set(word._batch._pieces)


def test_word_batches_forget_whole_texts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_batch, "MAX_TOKENS", 100)
    word = WordTokenizer(rules="none")
    for i in range(50):
        text = f"Text {i} ends in a line break, and so it is one piece.\n"
        batch = word.encode([text])
        assert [batch.types[i] for i in batch.ids] == word.tokenize(text)
        assert word._batch._runs.used < 150


def test_single_texts_forget_when_they_know_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Don't forget word{i}, please." for i in range(200)]
    expected = [WordTokenizer().tokenize(text) for text in texts]
    monkeypatch.setattr(word, "MAX_STRINGS", len(WordTokenizer().nlp.vocab.strings) + 20)
    tokenizer = WordTokenizer()
    assert [tokenizer.tokenize(text) for text in texts] == expected
    assert len(tokenizer.nlp.vocab.strings) < word.MAX_STRINGS + 20


def test_neither_tokenizing_nor_reading_ids_imports_torch() -> None:
    code = (
        "import sys, pipeline.stages.tokenize_corpus, pipeline.stages.numericalize_corpus, pipeline.text.ids\n"
        "from pipeline.text.word import WordTokenizer\n"
        "WordTokenizer().encode(['a text'])\n"
        "print(sorted({'torch', 'fastai'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
