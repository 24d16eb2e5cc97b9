"""Films told apart by their ratings: on planted tastes, from a folder, an archive and a server, and on MovieLens."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import read_embeddings
from file_server import Server

from pipeline.errors import DataError, InputError
from pipeline.published import PublishedFile, WholeSha256

N_PEOPLE, N_FILMS = 120, 30


@pytest.fixture(scope="module")
def planted() -> dict[str, str]:
    """MovieLens' two tables of generated people: each likes even or odd films, and film 30 is better than film 1."""
    rng = np.random.default_rng(0)
    people, films = np.meshgrid(np.arange(1, N_PEOPLE + 1), np.arange(1, N_FILMS + 1))
    taste = np.where((people + films) % 2 == 0, 1.0, -1.0)
    quality = (films - N_FILMS / 2) / N_FILMS * 2
    ratings = np.clip(np.rint(2 * (3 + taste + quality + rng.normal(0, 0.3, films.shape))) / 2, 0.5, 5)
    kept = rng.random(films.shape) < 0.8
    table = pd.DataFrame({
        "userId": people[kept], "movieId": films[kept], "rating": ratings[kept], "timestamp": 1_000_000_000,
    })
    table["timestamp"] += rng.integers(0, 10**8, len(table))
    titles = pd.DataFrame({
        "movieId": range(1, N_FILMS + 1), "title": [f"Film {i} ({1970 + i})" for i in range(1, N_FILMS + 1)],
        "genres": ["Comedy|Drama", "Drama"] * (N_FILMS // 2),
    })
    return {"ratings.csv": table.to_csv(index=False), "movies.csv": titles.to_csv(index=False)}


def archived(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"ml-latest-small/{name}", content)
    return stream.getvalue()


def test_what_was_planted_is_found(planted: dict[str, str], tmp_path: Path) -> None:
    for name, content in planted.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    read_embeddings.main(["--source", str(tmp_path), "--epochs", "80", "--output", str(tmp_path / "out")])
    figures = json.loads((tmp_path / "out" / "read_embeddings.json").read_text(encoding="utf-8"))
    rmse = figures["rmse"]
    assert rmse["dot product and biases"] < 0.75 * rmse["biases alone"]  # tastes
    assert rmse["biases alone"] < 0.95 * rmse["mean of all ratings"]  # qualities
    numbers = {key: [int(title.split()[1]) for title in titles] for key, titles in figures["films"].items()}
    assert min(numbers["best by bias"]) > N_FILMS * 2 / 3
    assert max(numbers["worst by bias"]) < N_FILMS / 3
    low, high = ({number % 2 for number in numbers[f"factor 1, {end} end"]} for end in ("low", "high"))
    assert {*low, *high} == {0, 1}
    assert len(low) == len(high) == 1
    assert (tmp_path / "out" / "read_embeddings.png").read_bytes().startswith(b"\x89PNG")


def test_it_is_downloaded_and_checked(
    planted: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Server(archived(planted)) as server:
        url, right = server.url("ml-latest-small.zip"), hashlib.sha256(server.content).hexdigest()
        monkeypatch.setattr(read_embeddings, "MOVIELENS", PublishedFile(url, WholeSha256("0" * 64)))
        with pytest.raises(InputError, match=r"not the published file: SHA-256 \w{64}, .* give --source PATH"):
            read_embeddings.main(["--epochs", "1"])
        monkeypatch.setattr(read_embeddings, "MOVIELENS", PublishedFile(url, WholeSha256(right)))
        read_embeddings.main(["--epochs", "1"])
    assert (tmp_path / "data" / "downloads" / "ml-latest-small.zip").read_bytes() == server.content
    assert (tmp_path / "data" / "companions" / "read_embeddings.json").exists()


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ratings\.csv.*Give the folder or archive ml-latest-small with --source"):
        read_embeddings.tables(tmp_path)
    for name in ("ratings.csv", "movies.csv"):
        (tmp_path / name).write_text("one,two\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"does not hold what is needed: 'title'"):
        read_embeddings.tables(tmp_path)
    (tmp_path / "films.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"films\.zip cannot be read: File is not a zip file"):
        read_embeddings.tables(tmp_path / "films.zip")


@pytest.mark.slow
@pytest.mark.timeout(1200)  # of a busy machine
def test_people_differ_in_more_than_what_they_like_on_average(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "seeds" / "ml-latest-small"
    if not source.is_dir():
        pytest.skip("MovieLens is not among the shared test data")
    read_embeddings.main(["--source", str(source), "--output", str(tmp_path)])
    rmse = json.loads((tmp_path / "read_embeddings.json").read_text(encoding="utf-8"))["rmse"]
    assert rmse["dot product and biases"] < rmse["biases alone"] < rmse["mean of all ratings"] - 0.1
