"""T7: odd documents from the source to ids, each with its policy, and the same bytes for any number of workers."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.stage import Run, run_stage, stage_named
from pipeline.text.char import CharTokenizer
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.subword import train_subword
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.word import WordTokenizer

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
EDGES: dict[str, tuple[bytes, list[str] | None]] = {
    "empty": (b"", None), "blank": (b" \\n\\t ", None), "bom only": ("\ufeff".encode(), None),
    "nan": (b"nan", ["nan"]), "NULL": (b"NULL", ["xxup", "null"]), "None": (b"None", ["xxmaj", "none"]),
    "nul": (b"a\\u0000b", ["a", "\ufffd", "b"]), "bom": ("\ufeffmark".encode(), ["mark"]),
    "crlf": (b"one\\r\\ntwo\\rthree", ["one", "\n", "two", "\n", "three"]),
    "invalid utf-8": (b"caf\xe9 noir", ["caf", "\ufffd", "noir"]), "surrogate": (b"x\\ud800 y", ["x", "\ufffd", "y"]),
    "escape": (b"\\u001b[2J gone", ["\x1b[2j", "gone"]),
    "special": (b"xxbos xxunk xxrep 3 a", ["xxbos", "xxunk", "xxrep", "3", "a"]),
    "hebrew": ("\u05e9\u05dc\u05d5\u05dd \u202eabc".encode(), ["\u05e9\u05dc\u05d5\u05dd", "\u202eabc"]),
    "combining": ("e\u0301\u0327 o\u0308".encode(), ["e\u0301\u0327", "o\u0308"]),
    "family": (FAMILY.encode(), [*FAMILY]),
    "script": (b"<script>alert(1)</script>", None), "break": (b"a<br />b &amp; c", ["a", "\n", "b", "&", "&", "c"]),
    "one": (b"x", ["x"]),
}
"""Text as it stands in a JSON line, and its word tokens after xxbos (None: dropped, or looked at elsewhere)."""
REVIEW = "This film is GREAT, isn't it? I loved it sooo much!!!<br />Really really really good. "
LONG = (REVIEW * 15_000)[:1_000_001]
LONG_TOKEN = "AbC9-" * 200_000
N_TINY = 8_001
"""More than four row groups of the corpus, so that four workers have something to do."""


def line(doc_id: str, text: bytes, label: str | None = None) -> bytes:
    """A row of the source; `text` goes in as it is."""
    known = b"null" if label is None else json.dumps(label).encode()
    return b'{"id": ' + json.dumps(doc_id).encode() + b', "label": ' + known + b', "text": "' + text + b'"}\n'


def run(home: Path, stage: str, sections: dict[str, Any], name: str = "r") -> Artifact:
    return run_stage(Run(name, Recipe.model_validate(sections), home), stage_named(stage), Reporter(io.StringIO()))


def prepared(home: Path, lines: list[bytes], **chosen: Any) -> Artifact:
    home.mkdir(exist_ok=True)
    source = home / "source.jsonl"
    source.write_bytes(b"".join(lines))
    section = {"kind": "table", "source": str(source), "id_column": "id", "test_fraction": 0, "valid_fraction": 0}
    return run(home, "prepare_corpus", {"prepare_corpus": section | chosen})


def tokens_and_ids(home: Path, corpus: Artifact, workers: int, **chosen: Any) -> tuple[Artifact, Artifact]:
    sections = {
        "inputs": {"corpus": str(corpus.path)}, "numericalize_corpus": {"min_freq": 1},
        "tokenize_corpus": {"workers": workers} | chosen,
    }
    name = f"w{workers}"
    return run(home, "tokenize_corpus", sections, name), run(home, "numericalize_corpus", sections, name)


def tokens_by_document(ids: Artifact) -> dict[str, list[str]]:
    """Every document of an ids artifact as tokens, read from its files."""
    vocabulary = np.array(json.loads(ids.file("vocabulary.json").read_text(encoding="utf-8")), dtype=object)
    numbers = np.fromfile(ids.file("ids.bin"), dtype="<u2")
    offsets = np.load(ids.file("offsets.npy"))
    names = pq.read_table(ids.file("documents.parquet"))["doc_id"].to_pylist()
    return {name: list(vocabulary[numbers[a:b]]) for name, (a, b) in zip(names, pairwise(offsets), strict=True)}


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The corpus of all edge documents, a text of 1 MB, a token of 1,000,000 characters and many tiny documents."""
    lines = [line(f"e-{name}", text, "odd") for name, (text, _) in EDGES.items()]
    lines += [line("e-long", json.dumps(LONG)[1:-1].encode(), "odd"), line("e-token", LONG_TOKEN.encode(), "even")]
    lines += [line(f"t{i}", f"tiny {i % 97} film".encode(), ("odd", "even")[i % 2]) for i in range(N_TINY)]
    return prepared(tmp_path_factory.mktemp("edges"), lines)


def test_every_edge_document_has_its_policy_and_its_count(edges: Artifact) -> None:
    metrics = edges.manifest.metrics
    assert metrics["cleaned"] == {
        "empty": 2, "blank": 1, "bom": 2, "invalid_utf8": 1, "nul": 1, "surrogates": 1, "line_ends": 1,
        "control_characters": 1, "special_tokens": 1, "long_runs": 1, "over_1m_characters": 1,
    }
    assert metrics["documents"] == {"train": N_TINY + len(EDGES) + 2 - 3}
    with pq.ParquetFile(edges.file("documents.parquet")) as file:
        assert file.num_row_groups >= 5


def test_every_edge_document_becomes_the_ids_that_its_policy_says(edges: Artifact, tmp_path: Path) -> None:
    tokens, ids = tokens_and_ids(tmp_path, edges, 1)
    found = tokens_by_document(ids)
    for name, (_, expected) in EDGES.items():
        if expected is not None:
            assert found[f"e-{name}"] == ["xxbos", *expected], name
    assert not {"e-empty", "e-blank", "e-bom only"} & set(found)
    assert "".join(found["e-script"][1:]) == "<script>alert(1)</script>"
    assert "".join(found["e-token"][1:]) == LONG_TOKEN.lower(), "cut, with nothing lost"
    assert len(found["e-long"]) > 300_000
    assert found["t0"] == ["xxbos", "tiny", "0", "film"]
    assert len(found) == tokens.manifest.metrics["documents"] == edges.manifest.metrics["documents"]["train"]


def test_one_two_and_four_workers_give_the_same_bytes(edges: Artifact, tmp_path: Path) -> None:
    """Of the character tokenizer, whose workers start fast; test_tokenize_stage.py has the word tokenizer."""
    made = {workers: tokens_and_ids(tmp_path, edges, workers, tokenizer="char") for workers in (1, 2, 4)}
    for tokens, ids in made.values():
        assert tokens.manifest.files == made[1][0].manifest.files
        assert ids.manifest.files == made[1][1].manifest.files


def test_every_edge_document_reaches_sentencepiece(edges: Artifact, tmp_path: Path) -> None:
    """T8: long documents and long words too."""
    chosen = {"tokenizer": "subword", "model_type": "bpe", "vocab_size": 150, "character_coverage": 1.0}
    tokens, _ = tokens_and_ids(tmp_path, edges, 1, **chosen)
    assert tokens.manifest.metrics["training_share"] == {"documents": 1.0, "bytes": 1.0}


def test_one_document_and_none(tmp_path: Path) -> None:
    corpus = prepared(tmp_path / "one", [line("a", b"a single film")], label_column=None)
    assert corpus.manifest.metrics["documents"] == {"train": 1}
    _, ids = tokens_and_ids(tmp_path / "one", corpus, 4)
    assert tokens_by_document(ids) == {"a": ["xxbos", "a", "single", "film"]}
    for number, lines in enumerate(([], [b"\n"], [line("a", b""), line("b", b" ")])):
        empty = 2 if number == 2 else 0
        with pytest.raises(DataError, match=rf"source\.jsonl holds no text \({empty} empty documents\)"):
            prepared(tmp_path / f"none {number}", lines, label_column=None)


PIECES = st.sampled_from([
    "xxbos", "xxrep 9 a", "xxwrep 3 no", "\x1b[2J", "\x1e", "\x1f", "\x85", "\u2028", "\u202e\u05d0", "e\u0301", FAMILY,
    "<br />", "&lt;b&gt;", "\ufffd", " ", "  ", "\n\n", "\t", "AAAA", "!!!!", "no no no ", "#/\\", ":)", "x" * 1001,
    "\u2581", "\u2585", "nan",
])
TEXTS = st.lists(st.lists(PIECES | st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=4),
                          max_size=8).map("".join), max_size=4)
TOKENIZERS: dict[str, Tokenizer] = {
    "word": WordTokenizer(), "char": CharTokenizer(),
    "subword": train_subword([REVIEW, "xxrep 9 a \u05d0 e\u0301"], "fastai", "bpe", 60, 1.0)[0],
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@example(texts=["", "xxbos\x1e\x1eno no no "])
@given(texts=TEXTS)
@settings(max_examples=75, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_becomes_the_same_tokens_in_a_batch_as_alone(kind: str, texts: list[str]) -> None:
    tokenizer = TOKENIZERS[kind]
    batch = tokenizer.encode(texts)
    ends = np.cumsum(batch.lengths)
    assert len(batch.lengths) == len(texts)
    for text, length, end in zip(texts, batch.lengths, ends, strict=True):
        tokens = tokenizer.tokenize(text)
        assert [batch.types[i] for i in batch.ids[end - length : end]] == tokens
        assert tokens[0] == "xxbos"
        assert all(token and token.encode() for token in tokens)
        assert all(" " not in token for token in tokens)
        assert isinstance(tokenizer.detokenize(tokens), str)


def test_a_text_that_spells_special_tokens_gives_fastais_own(edges: Artifact) -> None:
    """fastai itself cannot tell them apart; so they are counted (`special_tokens`), and no other token is one."""
    for token in SPECIAL_TOKENS:
        assert WordTokenizer().tokenize(f"say {token} now") == ["xxbos", "say", token, "now"]
    assert edges.manifest.metrics["cleaned"]["special_tokens"] == 1
