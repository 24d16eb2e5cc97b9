"""Published files, fetched from a real server on this machine: retries, resumes, homes, and both kinds of check."""

import ast
import io
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from file_server import Server

from pipeline import download
from pipeline.corpus.source import IMDB_HOMES
from pipeline.errors import InputError
from pipeline.progress import Reporter
from pipeline.published import PublishedFile, SizeAndStart, WholeSum

NAME = "aclImdb_v1.tar.gz"
MB = 2**20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    with Server(random.Random(0).randbytes(1001)) as running:
        yield running


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


def fetch(file: PublishedFile, folder: Path, said: io.StringIO | None = None) -> Path:
    path, url = download.fetch([file], folder, Reporter(said or io.StringIO()))
    assert url == file.url
    return path


def test_resumes_where_the_connection_broke(server: Server, tmp_path: Path, said: io.StringIO) -> None:
    server.cuts = 2
    path = fetch(server.file(NAME), tmp_path, said)
    assert path.read_bytes() == server.content
    assert server.asked == [None, "bytes=500-", "bytes=750-"]
    assert said.getvalue().count("trying again") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", NAME]


def test_resumes_a_part_of_an_earlier_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(server.content[:100])
    assert fetch(server.file(NAME), tmp_path).read_bytes() == server.content
    assert server.asked == ["bytes=100-"]


def test_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / f"{NAME}.part").write_bytes(b"other")
    assert fetch(server.file(NAME), tmp_path).read_bytes() == server.content


def test_second_home(server: Server, tmp_path: Path, said: io.StringIO) -> None:
    homes = [server.file("gone.tar.gz"), server.file("imdb.tgz")]
    path, url = download.fetch(homes, tmp_path, Reporter(said))
    assert path == tmp_path / "imdb.tgz"
    assert url == homes[1].url
    assert "404" in said.getvalue()


def test_offline_uses_what_is_there_and_fetches_nothing(server: Server, tmp_path: Path, said: io.StringIO) -> None:
    with pytest.raises(InputError, match=rf"{NAME} is not there, .*offline nothing is fetched\. .*--download-only"):
        download.fetch([server.file(NAME)], tmp_path, Reporter(said), offline=True)
    assert server.asked == []
    fetched = download.fetch([server.file(NAME)], tmp_path, Reporter(said))
    assert download.fetch([server.file(NAME)], tmp_path, Reporter(said), offline=True) == fetched


def test_no_network(tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    file = PublishedFile("http://127.0.0.1:9/imdb.tgz", WholeSum("0" * 32))
    with pytest.raises(InputError, match=r"imdb\.tgz could not be downloaded \(http://127\.0\.0\.1:9/imdb\.tgz: .*\)\. "
                                         r"Fetch http://127\.0\.0\.1:9/imdb\.tgz on a machine with network, copy it "
                                         r"here and give --source PATH"):
        fetch(file, tmp_path, said)
    assert said.getvalue().count("trying again") == download.ATTEMPTS - 1


def test_the_sum_of_the_whole_file(server: Server, tmp_path: Path) -> None:
    server.content = random.Random(1).randbytes(MB + 10)
    file = server.file(NAME)
    server.content = server.content[:-1] + bytes([server.content[-1] ^ 1])  # one bit, beyond the start
    with pytest.raises(InputError, match=r"not the published file: MD5 \w{32}, published \w{32}\)\. Fetch http"):
        fetch(file, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_the_size_and_the_sum_of_the_start(server: Server, tmp_path: Path) -> None:
    good = random.Random(2).randbytes(2 * MB)
    server.content = good
    file = server.file_with_size("imdb.tgz")
    server.content = good[: MB + 10]  # its first megabyte is right, its size is not
    with pytest.raises(InputError, match=r"not the published file: 1,048,586 bytes, published 2,097,152\)"):
        fetch(file, tmp_path)
    server.content = b"\0" + good[1:]
    with pytest.raises(InputError, match=r"not the published file: MD5 of the start \w{32}, published \w{32}\)"):
        fetch(file, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    server.content = good
    path = fetch(file, tmp_path)
    assert path.read_bytes() == good
    requests = len(server.asked)
    assert fetch(file, tmp_path) == path  # lies there already
    assert len(server.asked) == requests
    path.write_bytes(good[: MB + 10])
    assert fetch(file, tmp_path).read_bytes() == good  # a copy that is not the published file is replaced
    assert len(server.asked) == requests + 1


def test_the_mirror_of_imdb_is_told_by_what_fastai_tells(tmp_path: Path) -> None:
    from fastdownload.core import path_stats

    table = find_spec("fastai").submodule_search_locations[0] + "/data/download_checks.py"
    mirror = IMDB_HOMES[1]
    told = ast.literal_eval(Path(table).read_text(encoding="utf-8"))[mirror.url]
    assert mirror.check == SizeAndStart(*told)
    path = tmp_path / "file"
    path.write_bytes(random.Random(3).randbytes(MB + 1))
    assert SizeAndStart(*path_stats(path)).mismatch(path) == ""
    assert mirror.mismatch(path) == "1,048,577 bytes, published 144,440,600"
