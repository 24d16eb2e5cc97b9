"""Nearest words and documents, analogies, and the picture of words."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from tiny_classifiers import seal_classifier
from tiny_language_models import seal_language_model
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.errors import ExitCode, InputError, UsageError
from pipeline.inference import inputs, neighbours, word_plot
from pipeline.inference.bulk import Request
from pipeline.inference.embed import embed, load_embedder
from pipeline.inference.neighbours import WordVectors, model_of, nearest_documents
from pipeline.inference.vectors import read_origin
from pipeline.inference.word_plot import plot_words
from pipeline.progress import Reporter
from pipeline.settings import RunSettings

WORDS = WordVectors(
    Path("a-model"),
    {name: number for number, name in enumerate(
        ("xxunk", "xxmaj", "king", "queen", "man", "woman", "▁film", "nothing", "prince")
    )},
    np.array([[1, 1, 0], [9, 9, 9], [1, 0.9, 0], [1, -0.9, 0], [0, 2, 0], [0, -2, 0], [0, 0, 1], [0, 0, 0],
              [1, 0.8, 0.1]], dtype=np.float32),
)


def test_nearest_words_by_cosine() -> None:
    found = WORDS.nearest(["king"], n=3)
    assert [name for name, _ in found] == ["prince", "man", "queen"]
    a, b = WORDS.vectors[2], WORDS.vectors[8]
    assert found[0][1] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert dict(WORDS.nearest(["king"], n=99)).keys() == {"prince", "man", "queen", "woman", "▁film", "nothing"}


def test_analogies() -> None:
    assert WORDS.nearest(["king", "woman"], ["man"], n=1)[0][0] == "queen"


def test_words_are_found_as_tokens() -> None:
    assert [WORDS.token(word) for word in ("king", "King", "KING", "film", "▁film")] == ["king"] * 3 + ["▁film"] * 2
    assert replace(WORDS, numbers={"film": 0, **WORDS.numbers}).token("film") == "▁film"  # not the end of a word
    with pytest.raises(UsageError, match=r"'quen' is not in the vocabulary of a-model \(9 tokens\)\. .* 'queen'"):
        WORDS.nearest(["king", "quen"])
    with pytest.raises(UsageError, match=r"'xyz' is not in .*\. Choose words of its training text\."):
        WORDS.token("xyz")
    with pytest.raises(UsageError, match="'xxmaj' is not in the vocabulary"):
        WORDS.token("xxmaj")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal_language_model(tmp_path_factory.mktemp("model") / "lm")


@pytest.fixture
def vectors(language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Vectors of TEXTS, three in a row group."""
    monkeypatch.setattr(inputs, "BLOCK_DOCUMENTS", 3)
    request = Request(str(language_model), tuple(TEXTS), output=tmp_path / "v.parquet", precision="fp32", device="cpu")
    embed(request, "mean", Reporter(io.StringIO()), io.BytesIO(), io.BytesIO())
    return tmp_path / "v.parquet"


TEXTS = ["a warm film", "dull dull story", "the fine cast", "a warm witty film", "the story", "a warm film", "naïve"]


def test_nearest_documents(language_model: Path, vectors: Path) -> None:
    embedder = load_embedder(language_model, RunSettings(precision="fp32", device="cpu"))
    found = nearest_documents(embedder, "a warm film", vectors, read_origin(vectors), n=3)
    assert [name for name, _ in found] == ["0", "5", "3"]
    assert found[0][1] == pytest.approx(1.0, abs=1e-5)
    matrix = embedder.vectors(embedder.text.encode(TEXTS), "mean")
    centred = matrix - matrix.mean(axis=0)
    expected = centred[0] @ centred[3] / np.linalg.norm(centred[0]) / np.linalg.norm(centred[3])
    assert found[2][1] == pytest.approx(expected, abs=1e-5)
    assert len(nearest_documents(embedder, "film", vectors, read_origin(vectors), n=99)) == len(TEXTS)


def test_vectors_of_another_model_are_refused(language_model: Path, tmp_path: Path, vectors: Path) -> None:
    other = load_embedder(seal_language_model(tmp_path / "other", seed=4))
    with pytest.raises(InputError, match=r"were made by .*lm \([0-9a-f]{12}\), which is not .*other .* with --model"):
        nearest_documents(other, "film", vectors, read_origin(vectors))
    for path, message in ((tmp_path / "gone", "is not there"), (tmp_path, "is not a file"),
                          (language_model / "manifest.json", "is no Parquet file of document vectors")):
        with pytest.raises(InputError, match=message):
            read_origin(path)


def test_a_picture_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(word_plot, "_name_points", lambda axes, names, places: drawn.append((names, places)))
    chosen = ["king", "queen", "man", "woman", "film", "King"]
    plot_words(WORDS, chosen, tmp_path / "words.svg")
    ((names, places),) = drawn
    assert names == ["king", "queen", "man", "woman", "▁film"]
    assert places == pytest.approx(PCA(2, svd_solver="full").fit_transform(WORDS.vectors[2:7].astype(float)))


def test_pictures_are_reproducible_and_name_every_word(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "c.png"):
        plot_words(WORDS, ["king", "queen", "prince", "film"], tmp_path / name)
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert svg == (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert all(f">{word}<" in svg for word in ("king", "queen", "prince", "▁film", "4 words of a-model"))
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("chosen", "name", "message"),
    [
        (["king", "queen", "man"], "words.pdf", r"words\.pdf is neither \.png nor \.svg\."),
        (["king", "queen", "man"], "no/where.png", r"in a folder that is not there\. Make it: mkdir -p"),
        (["king", "queen", "King"], "words.png", r"2 different words make no picture\. Name three or more"),
        (["king", "queen", "princ"], "words.png", r"'princ' is not in the vocabulary .* 'prince'"),
    ],
)
def test_pictures_that_cannot_be(tmp_path: Path, chosen: list[str], name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plot_words(WORDS, chosen, tmp_path / name)


def call(*args: object) -> Result:
    return CliRunner().invoke(app, ["neighbours", *map(str, args)])


def test_the_command(language_model: Path, vectors: Path, tmp_path: Path) -> None:
    found = call("--word", "film", "--model", language_model, "--top", 2, "--json")
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["model"] == str(language_model)
    lines = call("--word", "film", "--model", language_model, "--top", 2).stdout.splitlines()
    assert lines == [f"{row['cosine']:6.3f}  {row['name']}" for row in answer["nearest"]]
    assert len(lines) == 2
    analogy = call("--word", "film", "--plus", "warm", "--minus", "dull", "--model", language_model, "--top", 1)
    assert analogy.exit_code == 0
    nothing = call("--word", "film", "--minus", "film", "--model", language_model)
    assert nothing.exit_code == ExitCode.USAGE
    assert "leave nothing to be near to. Name other words to take away." in nothing.stderr
    documents = call("--text", "a warm film", "--among", vectors, "--top", 1)  # the file knows its model
    assert documents.stdout == " 1.000  0\n"
    picture = call("--plot", tmp_path / "words.png", "--words", "film, story,cast", "--model", language_model)
    assert picture.stdout == f"{tmp_path / 'words.png'}\n"
    assert (tmp_path / "words.png").exists()


def test_the_model_of_document_vectors_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    classifier = seal_classifier(home / "models" / "one" / "classifier-fwd")
    seal_language_model(home / "models" / "one" / "lm-fwd")
    monkeypatch.chdir(home)
    asked = ["embed", "a warm film", "dull", "--model", "one", "--device", "cpu", "--output", "v.parquet"]
    assert CliRunner().invoke(app, asked).exit_code == 0
    monkeypatch.chdir(tmp_path)
    asking = ("--text", "a warm film", "--top", "1", "--among")
    for more in ((), ("--model", "one", "--home", home), ("--model", classifier)):
        found = call(*asking, home / "v.parquet", *more)
        assert found.stdout.split()[1:] == ["0"], found.output
    before = replace(read_origin(home / "v.parquet"), model="models/one/classifier-fwd")  # as it was written once
    assert model_of(before, home) == classifier
    other = home / "models" / "other" / "classifier-fwd"
    other.mkdir(parents=True)
    (other / "manifest.json").write_text("{", encoding="utf-8")
    monkeypatch.setattr(neighbours, "shipped_models", lambda: {"other": other.parent})
    assert model_of(replace(before, model="gone/classifier-fwd"), home).parts[0] == "gone", "damage of others is theirs"
    moved = home.rename(tmp_path / "moved")
    assert call(*asking, moved / "v.parquet", "--home", moved).stdout.split()[1:] == ["0"]
    gone = call(*asking, moved / "v.parquet")
    assert gone.exit_code == ExitCode.INPUT
    assert f"{classifier} is not there" in gone.stderr


def test_a_picture_that_cannot_be_is_refused_before_a_model_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "words.svg").mkdir()
    refused = call("--plot", tmp_path / "words.svg", "--words", "film,story,cast", "--model", "no model")
    assert refused.exit_code == ExitCode.USAGE
    assert f"--plot {tmp_path / 'words.svg'} is a folder. Choose another name." in refused.stderr


@pytest.mark.parametrize(
    "args",
    [(), ("--word", "a", "--text", "b", "--among", "c"), ("--text", "b"), ("--among", "c"), ("--plot", "x.png"),
     ("--words", "a,b"), ("--plus", "a"), ("--text", "b", "--among", "c", "--minus", "a")],
)
def test_the_command_asks_for_one_thing(args: tuple[str, ...]) -> None:
    result = call(*args)
    assert result.exit_code == ExitCode.USAGE
    assert "It is not clear whose neighbours are meant. Give one of: --word" in result.stderr
