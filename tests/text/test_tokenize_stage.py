"""tokenize_corpus through the stage contract: equal bytes for any number of workers, edge documents, inheritance."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from workshop import Row, Workshop, seal_folder

from pipeline.artifact import Artifact
from pipeline.errors import DataError, InputError, UsageError
from pipeline.text.tokenizer import load_tokenizer
from pipeline.text.word import WordTokenizer

PANGRAM = "The quick brown fox jumps over the lazy dog, she sells sea shells, Peter picked pickled peppers here. "
REVIEW = PANGRAM + (
    "This film is GREAT, isn't it? I loved it sooo much!!! Really really really good.<br /><br />See it /again/. "
)
EDGES: list[Row] = [
    ("train", "pos", REVIEW),
    ("train", "neg", " \n\t "),
    ("train", "neg", "\ufeffA byte order mark"),
    ("train", "pos", "nan"),
    ("train", "pos", "\u0301\u0301 \u0301"),
    ("train", "neg", "\ufffd\ufffd broken \ufffd"),
    ("train", "neg", ""),
    ("train", "pos", "one :" + "\x1e" + ") \u2028 two\n\n\nthree : ) 8 ) <unk> &lt;i&gt; \\n"),
    ("unlabelled", None, "xxunk xxbos xxmaj xxrep 3 ! ABC abc Abc"),
    ("valid", "pos", "Words never seen before: zyzzyva"),
    ("test", "neg", "Testing testing"),
]


def tokens_of(artifact: Artifact) -> list[list[str]]:
    """Every document of a tokens artifact, read from its files."""
    names = np.array(pq.read_table(artifact.path / "types.parquet")["token"].to_pylist(), dtype=object)
    type_ids = np.fromfile(artifact.path / "type_ids.bin", dtype="<u4")
    offsets = np.load(artifact.path / "offsets.npy")
    return [list(names[type_ids[a:b]]) for a, b in pairwise(offsets)]


@pytest.mark.parametrize("tokenizer", ["word", "subword", "char"])
@pytest.mark.parametrize("rules", ["fastai", "none"])
def test_every_kind_stores_what_its_tokenizer_says(workshop: Workshop, tokenizer: str, rules: str) -> None:
    workshop.corpus(EDGES, row_group_size=4)
    sealed = workshop.tokenize(tokenizer=tokenizer, rules=rules, model_type="bpe", vocab_size=80)
    loaded = load_tokenizer(sealed.path / "tokenizer")
    assert tokens_of(sealed) == [loaded.tokenize(text) for _, _, text in EDGES]
    assert all(tokens[0] == "xxbos" for tokens in tokens_of(sealed))
    documents = pq.read_table(sealed.path / "documents.parquet")
    assert documents.column_names == ["doc_id", "split", "label", "n_chars", "n_tokens"]
    assert documents["n_tokens"].to_pylist() == [len(tokens) for tokens in tokens_of(sealed)]


def test_types_are_numbered_by_first_appearance_and_counted_per_split(workshop: Workshop) -> None:
    workshop.corpus([("train", None, "b a b"), ("unlabelled", None, "c b"), ("test", None, "d a")], row_group_size=1)
    sealed = workshop.tokenize()
    types = pq.read_table(sealed.path / "types.parquet").to_pydict()
    assert types == {
        "token": ["xxbos", "b", "a", "c", "d"],
        "train": [1, 2, 1, 0, 0], "unlabelled": [1, 1, 0, 1, 0], "valid": [0, 0, 0, 0, 0], "test": [1, 0, 1, 0, 1],
    }
    assert sealed.manifest.metrics == {
        "tokenizer": "word", "documents": 3, "tokens": {"train": 4, "unlabelled": 3, "valid": 0, "test": 3},
        "types": 5, "characters_per_token": 1.1,
    }


@pytest.mark.parametrize(("tokenizer", "workers"), [("word", 2), ("word", 4), ("subword", 4)])
def test_the_number_of_workers_changes_no_byte(workshop: Workshop, tokenizer: str, workers: int) -> None:
    """test_edge_documents.py has the character tokenizer, and longer documents."""
    long: list[Row] = [("train", None, REVIEW * 300), ("train", None, "AbC9-" * 10_000)]
    rows = [*long, *EDGES]
    pieces = {"tokenizer": tokenizer, "model_type": "bpe", "vocab_size": 80}
    workshop.corpus(rows, row_group_size=2)
    alone = workshop.tokenize(**pieces).manifest.files
    workshop.home = workshop.home.parent / "among workers"
    workshop.corpus(rows, row_group_size=2)
    assert workshop.tokenize(workers=workers, **pieces).manifest.files == alone


def test_a_ten_megabyte_document_and_a_token_of_a_million_characters(workshop: Workshop) -> None:
    long_document = (REVIEW * (10_000_000 // len(REVIEW) + 1))[:10_000_000]
    long_token = "AbC9-" * 200_000
    workshop.corpus([("train", None, long_document), ("train", None, long_token), ("test", None, "x" * 1_000_000)])
    sealed = workshop.tokenize()
    first, second, third = tokens_of(sealed)
    assert len(first) > 2_000_000
    assert "".join(second[1:]) == long_token.lower(), "cut, with nothing lost"
    assert third == ["xxbos", *["xxrep", "1000", "x"] * 1000]


def test_shards_of_a_stopped_attempt_are_used_again(workshop: Workshop) -> None:
    from pipeline.attempt import partial_path
    from pipeline.text import shards

    workshop.corpus(EDGES, row_group_size=2)
    target = workshop.home / "data" / "r" / "tokens"
    made: list[int] = []
    plain = shards.ShardTokenizer.make

    def stop_after_two(self: shards.ShardTokenizer, shard: int, encoder: shards.Encoder) -> Path:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(shard)
        return plain(self, shard, encoder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards.ShardTokenizer, "make", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            workshop.tokenize()
    kept = sorted((partial_path(target) / "resume").glob("pieces-*/*.shard"))
    assert [path.name for path in kept] == ["000000.shard", "000001.shard"]
    stamps = [path.stat().st_mtime_ns for path in kept]
    with pytest.MonkeyPatch.context() as patch:
        seen: list[int] = []

        def note(self: shards.ShardTokenizer, shard: int, encoder: shards.Encoder) -> Path:
            path = plain(self, shard, encoder)
            seen.append(path.stat().st_mtime_ns)
            return path

        patch.setattr(shards.ShardTokenizer, "make", note)
        resumed = workshop.tokenize()
    assert seen[:2] == stamps
    assert "tokenize_corpus: going on" in workshop.log.getvalue()
    workshop.home = workshop.home.parent / "unbroken"
    workshop.corpus(EDGES, row_group_size=2)
    assert workshop.tokenize().manifest.files == resumed.manifest.files


def test_the_tokenizer_of_a_start_model_is_inherited(workshop: Workshop, tmp_path: Path) -> None:
    workshop.corpus(EDGES)
    lm = start_model(workshop, tmp_path / "lm", tokenizer="char")
    tokens = workshop.tokenize(start_lm=lm.path, tokenizer="word", force=True)
    assert load_tokenizer(tokens.path / "tokenizer").kind == "char"
    assert f"tokenizer inherited from {lm.path} (char, rules fastai)" in workshop.log.getvalue()
    ids = workshop.numericalize(start_lm=lm.path, min_freq=9)
    assert json.loads((ids.path / "vocabulary.json").read_text(encoding="utf-8")) == ["xxunk", "xxbos", *"▁aeiostnrl"]
    identities = {artifact.manifest.identity["tokenizer"] for artifact in (lm, tokens, ids)}
    assert len(identities) == 1


def test_a_start_model_with_another_tokenizer_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    workshop.corpus(EDGES)
    lm = start_model(workshop, tmp_path / "lm", tokenizer="char")
    tokens = workshop.tokenize(tokenizer="word", force=True)
    with pytest.raises(InputError) as error:
        workshop.numericalize(start_lm=lm.path)
    for identity in (tokens.manifest.identity, lm.manifest.identity):
        assert identity["tokenizer"][:12] in str(error.value)


def start_model(workshop: Workshop, target: Path, tokenizer: str) -> Artifact:
    """A sealed language model, as far as these stages look at one."""
    import shutil

    tokens = workshop.tokenize(tokenizer=tokenizer)
    vocabulary = json.dumps(["xxunk", "xxbos", *"▁aeiostnrl"])

    def write(work: Path) -> None:
        shutil.copytree(tokens.path / "tokenizer", work / "tokenizer")
        (work / "vocabulary.json").write_text(vocabulary, encoding="utf-8")

    return seal_folder(target, "lm", tokens.manifest.identity, write)


def test_an_empty_corpus_and_an_unknown_language_are_refused(workshop: Workshop) -> None:
    workshop.corpus([])
    with pytest.raises(DataError, match="holds no document"):
        workshop.tokenize()
    workshop.corpus([("train", None, "text")])
    with pytest.raises(UsageError, match=r"no tokenizer for tokenize_corpus\.language 'qq'"):
        workshop.tokenize(language="qq")


@pytest.mark.parametrize("language", ["es", "ru", "zh"])
def test_languages_whose_tokenizer_does_not_work_word_by_word(workshop: Workshop, language: str) -> None:
    texts = ["¿Qué tal, señor? ¡Bien! EEUU", "Это было хорошо.", "我喜欢这部电影。"]
    workshop.corpus([("train", None, text) for text in texts])
    tokens = tokens_of(workshop.tokenize(language=language, workers=1))
    assert tokens == [WordTokenizer(language).tokenize(text) for text in texts]


def test_marks_stay_whole_where_spacy_knows_no_special_cases() -> None:
    tokens = WordTokenizer("zh").tokenize("我喜欢 Ab 和 NLP!!!! 好")
    assert tokens == [
        "xxbos", "我", "喜", "欢", "xxmaj", "a", "b", "和", "xxup", "n", "l", "p", "xxrep", "4", "!", "好"
    ]
    assert WordTokenizer("zh", rules="none").tokenize("xxmaj 好") == ["xxbos", "xxmaj", "好"]


def test_real_reviews_in_two_processes_equal_one(workshop: Workshop, reviews: list[str]) -> None:
    rows: list[Row] = [("train", None, text) for text in reviews[:100]]
    workshop.corpus(rows, row_group_size=25)
    tokens = tokens_of(workshop.tokenize(workers=2))
    here = load_tokenizer(workshop.home / "data" / "r" / "tokens" / "tokenizer")
    assert hashlib.sha256(repr(tokens).encode()).digest() == hashlib.sha256(
        repr([here.tokenize(text) for text in reviews[:100]]).encode()
    ).digest()
