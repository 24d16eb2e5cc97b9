"""The `serve` command as a process: it starts, says where it is, refuses what it cannot do, and stops as asked."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.serving.metrics import Metrics
from pipeline.serving.models import Models
from pipeline.serving.work import Busy, MicroBatcher, SlowLane

ROOT = Path(__file__).parents[2]
KEY = "correct-horse-battery"


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "serve", "--home", str(home), "--port", "0", *arguments], cwd=ROOT,
        text=True, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Shells make their background jobs, of which these tests may be one, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )


def address(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """Where it listens, and the lines up to there."""
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"listening on (http://\S+)/ ", line):
            return found[1], lines
    raise AssertionError("".join(lines))


@pytest.fixture
def process(home: Path) -> Iterator[subprocess.Popen[str]]:
    with start(home, "--model", "one", "--lm", "one") as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_finishes_what_was_accepted_and_exits_0(
    process: subprocess.Popen[str], number: signal.Signals
) -> None:
    url, lines = address(process)
    assert re.match(r"serve: classifier one: .*classifier-fwd, device cpu, precision ", lines[0])
    assert re.match(r"serve: language model one: .*lm-fwd, device cpu, precision ", lines[1])
    assert lines[2].endswith("/ without a key\n")
    assert httpx.post(f"{url}/predict", json={"texts": ["a warm film"]}, timeout=30).status_code == 200
    body = json.dumps({"texts": ["dull"]}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(head.encode() + body[:5])
        assert httpx.get(f"{url}/health", timeout=30).json() == {"status": "ok"}  # so the header above has been read
        process.send_signal(number)
        assert process.stderr
        said = process.stderr.readline()
        assert said == f"{number.name}: finishing what was accepted; a second signal ends at once\n"
        connection.sendall(body[5:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    assert process.wait(30) == 0
    assert process.stderr.read() == "serve: stopped\n"


def test_the_second_signal_ends_at_once(process: subprocess.Popen[str]) -> None:
    url, _ = address(process)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        assert httpx.get(f"{url}/health", timeout=30).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.stderr
        process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 75


def test_the_key_comes_from_a_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
    with start(home, "--model", "one", "--api-key-file", str(tmp_path / "key")) as process:
        url, lines = address(process)
        assert lines[-1].endswith("/ with a key\n")
        assert KEY not in "".join(lines)
        assert httpx.get(f"{url}/models", timeout=30).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{url}/models", headers=headers, timeout=30).status_code == 200
        process.terminate()
        assert process.wait(30) == 0


def refused(*arguments: str, code: int, key: str | None = None) -> str:
    result = CliRunner().invoke(app, ["serve", *arguments], env={"STAGED_ULMFIT_API_KEY": key})
    assert result.exit_code == code, result.output
    return result.output


def test_what_cannot_be_served_is_refused_with_advice(home: Path, tmp_path: Path) -> None:
    at_home = ("--home", str(home), "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        text = refused("--home", str(home), "--model", "one", "--port", port, code=2)
    assert f"127.0.0.1:{port} cannot be listened on" in text
    assert "Choose another --host or --port; 0 takes any free port." in text
    assert "no.such.host.invalid" in refused(*at_home, "--model", "one", "--host", "no.such.host.invalid", code=2)
    assert "There is no classifier three" in refused(*at_home, "--model", "three", code=3)
    assert "There is no language model two" in refused(*at_home, "--model", "two", "--lm", "two", code=3)
    assert "--precision cannot be 'int4'" in refused(*at_home, "--model", "one", "--precision", "int4", code=2)
    for bad in ("short", "", "with a space in the middle", "schlüssel-mit-umlaut-ü"):
        text = refused(*at_home, "--model", "one", code=2, key=bad)
        assert "The key in STAGED_ULMFIT_API_KEY is not one word of 16 or more ASCII characters." in text
        assert not bad or bad not in text
    assert "cannot be read" in refused(*at_home, "--model", "one", "--api-key-file", str(tmp_path / "no"), code=3)


def test_who_has_gone_takes_nobodys_place(models: Models) -> None:
    batcher, bundle = MicroBatcher(Metrics(), 2, threads=1), models.classifiers["one"]
    begun, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        begun.set()
        go_on.wait(60)

    async def ask() -> None:
        handle = bundle.classifier.model.register_forward_pre_hook(hold)
        running = asyncio.create_task(batcher.probabilities(bundle, ["a"]))
        await asyncio.to_thread(begun.wait, 60)
        handle.remove()
        waiting = [asyncio.create_task(batcher.probabilities(bundle, ["b"])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await batcher.probabilities(bundle, ["c"])
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        last = asyncio.create_task(batcher.probabilities(bundle, ["d"]))
        await asyncio.sleep(0)
        go_on.set()
        assert len(await running) == len(await last) == 1

    try:
        asyncio.run(ask())
    finally:
        go_on.set()
        batcher.close()


def test_each_worker_has_its_number_of_cores(models: Models) -> None:
    before = torch.get_num_threads()
    lane = SlowLane(2)
    batcher = MicroBatcher(Metrics(), 2, threads=2)
    seen: list[int] = []
    bundle = models.classifiers["one"]

    async def ask() -> int:
        handle = bundle.classifier.model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
        await batcher.probabilities(bundle, ["a"])
        handle.remove()
        return await lane.run(lambda check: torch.get_num_threads())

    try:
        assert asyncio.run(ask()) == 1
        assert seen == [2]
    finally:
        batcher.close()
        lane.close()
        torch.set_num_threads(before)
