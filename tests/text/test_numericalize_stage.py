"""numericalize_corpus through the stage contract, and the id store."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from workshop import Row, Workshop, seal_folder

from pipeline.errors import DataError, InputError, UsageError
from pipeline.text.ids import IdStore
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.text_encoder import TextEncoder
from pipeline.text.vocabulary import read_vocabulary

ROWS: list[Row] = [
    ("train", "pos", "film good film good film"),
    ("train", "neg", "bad film once"),
    ("unlabelled", None, "bad good film"),
    ("valid", "pos", "good zebra lion zebra lion"),
    ("test", "neg", "quagga emu quagga emu film"),
]


def test_ids_lead_back_to_the_tokens(workshop: Workshop) -> None:
    workshop.corpus(ROWS)
    workshop.tokenize()
    sealed = workshop.numericalize(min_freq=2)
    store = IdStore.open(sealed)
    assert store.vocabulary == [*SPECIAL_TOKENS, "film", "good", "bad"], "train and unlabelled text only"
    assert store.ids.dtype == np.uint16
    assert isinstance(store.ids, np.memmap)
    words = [[store.vocabulary[i] for i in store.document(n)] for n in range(len(store))]
    assert words[1] == ["xxbos", "bad", "film", "xxunk"]
    assert words[4] == ["xxbos", *["xxunk"] * 4, "film"]
    assert store.labels == ["neg", "pos"]
    assert store.label_ids.tolist() == [1, 0, -1, 1, 0]
    assert store.documents("train", "valid").tolist() == [0, 1, 3]
    assert store.documents("test").tolist() == [4]
    assert store.doc_ids.tolist() == ["d0", "d1", "d2", "d3", "d4"]
    assert store.n_tokens.tolist() == [6, 4, 4, 6, 6]
    assert store.n_chars.tolist() == [len(text) for _, _, text in ROWS]
    assert pq.read_table(sealed.path / "documents.parquet").column_names == [
        "doc_id", "split", "label", "label_id", "n_chars", "n_tokens"
    ]
    assert sealed.manifest.metrics == {
        "vocabulary": 12,
        "tokens": {"train": 10, "unlabelled": 4, "valid": 6, "test": 6},
        "unknown_share": {"train": 0.1, "unlabelled": 0.0, "valid": round(4 / 6, 6), "test": round(4 / 6, 6)},
    }
    with pytest.raises(UsageError, match="no split 'dev'"):
        store.documents("dev")


def test_a_word_that_is_written_like_padding_is_unknown(workshop: Workshop) -> None:
    """As padding it would be left out of every model's sight, and be no word of the text to a classifier's pooling."""
    workshop.corpus([*ROWS, ("train", "pos", "good xxpad film")])
    workshop.tokenize()
    sealed = workshop.numericalize(min_freq=2)
    store, encoder = IdStore.open(sealed), TextEncoder.load(sealed.path)
    ids = store.document(len(store) - 1).tolist()
    assert [store.vocabulary[i] for i in ids] == ["xxbos", "good", "xxunk", "film"]
    assert encoder.encode(["good xxpad film"])[0].tolist() == ids
    assert [found.tolist() for found in encoder.encode(["film", "good xxpad film"])][1] == ids


def test_another_vocabulary_never_tokenizes_again(workshop: Workshop) -> None:
    workshop.corpus(ROWS)
    tokens = workshop.tokenize()
    first = workshop.numericalize(min_freq=1)
    stamp = (tokens.path / "type_ids.bin").stat().st_mtime_ns
    second = workshop.numericalize(min_freq=2, max_vocab=11, force=True)
    assert workshop.tokenize(force=True).manifest == tokens.manifest
    assert (tokens.path / "type_ids.bin").stat().st_mtime_ns == stamp
    assert read_vocabulary(second.path) == [*SPECIAL_TOKENS, "film", "good"]
    assert first.manifest.identity["vocabulary"] != second.manifest.identity["vocabulary"]
    with pytest.raises(InputError, match=r"numericalize_corpus\.max_vocab was 11, now 12"):
        workshop.numericalize(min_freq=2, max_vocab=12)


def test_a_vocabulary_beyond_16_bits_is_stored_in_32(workshop: Workshop) -> None:
    text = " ".join("w" + "q".join(str(i)) + "x" for i in range(70_000))  # no digit thrice: xxrep
    workshop.corpus([("train", None, text)])
    workshop.tokenize()
    store = IdStore.open(workshop.numericalize(min_freq=1, max_vocab=80_000))
    assert store.ids.dtype == np.uint32
    assert store.vocabulary[store.ids[-1]] == "w6q9q9q9q9x"


def test_vocabularies_that_cannot_work_are_refused(workshop: Workshop) -> None:
    workshop.corpus(ROWS)
    workshop.tokenize()
    with pytest.raises(DataError, match=r"min_freq 50\. Lower numericalize_corpus\.min_freq"):
        workshop.numericalize(min_freq=50)
    workshop.corpus([("train", None, "a b a c a d e f g h i j"), ("test", None, "x")])
    workshop.tokenize(force=True)
    with pytest.raises(DataError, match=r"69% of the training tokens would be xxunk\. Lower .*\.min_freq below 3"):
        workshop.numericalize(min_freq=3)
    with pytest.raises(DataError, match=r"Raise numericalize_corpus\.max_vocab above 10; 11 tokens"):
        workshop.numericalize(min_freq=1, max_vocab=10)


def test_a_corpus_without_training_text_is_refused(workshop: Workshop) -> None:
    workshop.corpus([("valid", None, "a"), ("test", None, "b")])
    workshop.tokenize()
    with pytest.raises(DataError, match="holds no training text"):
        workshop.numericalize()


def test_the_store_refuses_what_is_no_ids_artifact(workshop: Workshop, tmp_path: Path) -> None:
    workshop.corpus(ROWS)
    tokens = workshop.tokenize()
    with pytest.raises(InputError, match="holds tokens, not ids"):
        IdStore.open(tokens)
    ids = workshop.numericalize(min_freq=1)

    def write(work: Path) -> None:
        for name in ids.manifest.files:
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).write_bytes((ids.path / name).read_bytes())
        np.save(work / "offsets.npy", np.load(ids.path / "offsets.npy")[:-1])

    with pytest.raises(InputError, match="do not fit together"):
        IdStore.open(seal_folder(tmp_path / "odd", "ids", ids.manifest.identity, write))


@pytest.mark.parametrize("content", ["{", '["a"]', '["xxunk", "a", "a"]', '["xxunk", 3]', '{"xxunk": 0}'])
def test_damaged_vocabularies_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocabulary.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"vocabulary\.json (is|lacks)"):
        read_vocabulary(tmp_path)


def test_stores_cannot_be_changed(workshop: Workshop) -> None:
    workshop.corpus(ROWS)
    workshop.tokenize()
    sealed = workshop.numericalize(min_freq=1)
    store = IdStore.open(sealed)
    with pytest.raises(dataclasses.FrozenInstanceError):
        store.vocabulary = []  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        store.ids[0] = 1
    assert json.loads((sealed.path / "vocabulary.json").read_text(encoding="utf-8")) == store.vocabulary
