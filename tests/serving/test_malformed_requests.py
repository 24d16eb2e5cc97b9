"""Requests as no client should send them: each gets a 4xx in JSON, none a traceback, and no worker is stuck."""

import json
import logging
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from served import Served, running

from pipeline.serving.limits import MAX_CHARACTERS, MAX_PROMPT_CHARACTERS, MAX_TEXTS, Limits
from pipeline.serving.models import Models

IMPATIENT = Limits(header_s=2.0, body_s=1.0)
N_REQUESTS, N_SLOW = 1000, 40
BODIES = {
    "/predict": {"texts": ["a warm film"]}, "/explain": {"text": "a warm film"}, "/generate": {"prompt": "a"},
}
WRONG = [None, True, 3, -1, 1.5, 10**400, "", "x", [], {}, [[]], [None], {"a": 1}, [1, "a"], "9" * 300]
Make = Callable[[random.Random], tuple[bytes, set[int]]]
"""The bytes of a request, and the statuses it may get."""


@pytest.fixture(scope="module")
def impatient(models: Models) -> Iterator[Served]:
    with running(models, IMPATIENT) as server:
        yield server


def request(path: str, body: bytes, *headers: str, method: str = "POST", length: str | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if not any(header.lower().startswith("content-type") for header in headers):
        lines.append("Content-Type: application/json")
    if length != "":
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def wrong_type(rng: random.Random) -> tuple[bytes, set[int]]:
    path, good = rng.choice(list(BODIES.items()))
    if rng.random() < 0.3:
        body: object = rng.choice([x for x in WRONG if not isinstance(x, dict)])
    else:
        (key,) = good
        fields = {"/predict": ["model"], "/explain": ["model", "label", "method"], "/generate": [
            "max_tokens", "samples", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed"]}[path]
        field = rng.choice([key, *fields, "unknown"])
        values = [x for x in WRONG if not (x is None and field in ("model", "label"))]
        if field in ("text", "prompt"):
            values = [x for x in values if not isinstance(x, str)]
        if path == "/generate" and field not in ("prompt", "unknown"):
            values = [x for x in values if x is True or x is None or isinstance(x, str | list | dict) or x == 10**400]
        body = {**good, field: rng.choice(values)}
    return request(path, json.dumps(body).encode()), {404, 422}


def no_json(rng: random.Random) -> tuple[bytes, set[int]]:
    path, good = rng.choice(list(BODIES.items()))
    text = json.dumps(good)
    body = rng.choice([
        b"", b"{", text[: rng.randrange(1, len(text))].encode(), text.replace('"', "'").encode(), text.encode() + b"}",
        b'{"texts": [NaN]}', text.replace(":", ": \x00").encode(), b"\xef\xbb\xbf" + text.encode(), b"<xml/>",
        text.encode("utf-16"), rng.randbytes(60),
    ])
    return request(path, body), {400, 422}


def no_utf8(rng: random.Random) -> tuple[bytes, set[int]]:
    bad = rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80", b"\\ud800", b"\\udc00x"])
    path, good = rng.choice(list(BODIES.items()))
    body = json.dumps({key: "TEXT" if key != "texts" else ["TEXT"] for key in good}).encode().replace(b"TEXT", bad)
    return request(path, body), {400}


def deep(rng: random.Random) -> tuple[bytes, set[int]]:
    depth = rng.choice([50, 300, 5_000, 200_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"texts":', b"}"), (b'{"text":[', b"]}")])
    body = opening * depth + rng.choice([b"1", b""]) + closing * rng.choice([depth, 0])
    return request(rng.choice(list(BODIES)), body), {400, 413, 422}


def huge(rng: random.Random) -> tuple[bytes, set[int]]:
    kind = rng.randrange(6)
    if kind == 0:
        return request("/predict", json.dumps({"texts": ["x" * IMPATIENT.body_bytes]}).encode()), {413}
    if kind == 1:  # a length that is a lie: it is refused before anything is read
        return request("/explain", b"{}", length=str(rng.choice([2**21, 10**12, 10**18]))), {413}
    if kind == 2:
        chunk = b"%x\r\n" % 65_536 + b" " * 65_536 + b"\r\n"
        return request("/predict", chunk * 20 + b"0\r\n\r\n", "Transfer-Encoding: chunked", length=""), {413}
    if kind == 3:
        return request("/predict", json.dumps({"texts": ["x" * (MAX_CHARACTERS + 1)]}).encode()), {422}
    if kind == 4:
        return request("/predict", json.dumps({"texts": ["x"] * (MAX_TEXTS + 1)}).encode()), {422}
    return request("/generate", json.dumps({"prompt": "x" * (MAX_PROMPT_CHARACTERS + 1)}).encode()), {422}


def no_http(rng: random.Random) -> tuple[bytes, set[int]]:
    return rng.choice([
        b"HELLO\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET /\r\n\r\n",
        b"POST /predict HTTP/one\r\nHost: x\r\n\r\n", b"POST  /predict HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\n\r\n",  # HTTP/1.1 without a host
        b"POST /predict HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 600_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 600_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        request("/predict", b"{}", length="-1"), request("/predict", b"{}", length="two"),
        request("/predict", b"{}", length="9" * 5_000), request("/predict", b"{}", "Content-Length: 3"),
        request("/predict", b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=""),
        request("/predict", b"", "Transfer-Encoding: gzip", length=""),
        request("/predict", b"fffffffffffffffffffffff\r\n", "Transfer-Encoding: chunked", length=""),
    ]), {400}


def misdirected(rng: random.Random) -> tuple[bytes, set[int]]:
    body = json.dumps(BODIES["/predict"]).encode()
    return rng.choice([
        (request("/predict", body, method=rng.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])), {405}),
        (request("/models", body), {405}),
        (request(rng.choice(["/predict/", "/admin", "//", "/..%2fpage.js", "/page.js%00", "/%ff"]), body), {404}),
        (request("/predict", body, "Content-Type: text/plain"), {415}),
        (request("/predict", body, "Content-Type: " + "x" * 3000), {415}),
        (request("/predict", json.dumps({"texts": ["a"], "model": "none\n"}).encode()), {404}),
        (request("/explain", json.dumps({"text": "a", "label": "none"}).encode()), {422}),
    ])


KINDS: list[Make] = [wrong_type, no_json, no_utf8, deep, huge, no_http, misdirected]


def answer_of(server: Served, parts: Iterator[bytes] | list[bytes], pause_s: float = 0.0) -> tuple[int, bytes]:
    """Status and body of the first answer; sends `parts` with pauses until they end or an answer comes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        received = bytearray()
        done = threading.Event()

        def send() -> None:
            try:
                for part in parts:
                    connection.sendall(part)
                    if done.wait(pause_s):
                        return
            except OSError:
                return  # the server has closed what it refused

        sender = threading.Thread(target=send)
        sender.start()
        try:
            while not is_whole(received):
                data = connection.recv(65_536)
                if not data:
                    break
                received += data
        finally:
            done.set()
            sender.join()
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), (head[:200], body[:200])
    return int(head.split()[1]), body


def is_whole(received: bytearray) -> bool:
    head, end, body = bytes(received).partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) >= (lengths or [0])[0]


def receive(connection: socket.socket) -> bytes:
    """One whole answer: its head and its body may arrive apart."""
    received = bytearray()
    while not is_whole(received):
        data = connection.recv(65_536)
        assert data, bytes(received)
        received += data
    return bytes(received)


def check_serves(server: Served) -> None:
    started = time.monotonic()
    for path, body in BODIES.items():
        assert server.post(path, body).status_code == 200
    assert time.monotonic() - started < 10


def slow(number: int) -> tuple[list[bytes], set[int]]:
    """A client that lets its bytes trickle."""
    whole = request("/predict", json.dumps(BODIES["/predict"]).encode())
    kind = number % 4
    if kind == 0:  # every line of the header takes its time
        return [b"POST /predict HTTP/1.1\r\n", *[b"X-%d: y\r\n" % i for i in range(99)]], {408}
    if kind == 1:
        return [whole[:-5], *[b" "] * 2], {408}
    if kind == 2:
        return [whole[i : i + 1] for i in range(len(whole))], {408}
    return [request("/explain", b"", "Transfer-Encoding: chunked", length=""), *[b"1\r\n \r\n"] * 99], {408}


def test_malformed_requests_get_4xx_and_nothing_else_happens(
    impatient: Served, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(20)
    made = [KINDS[i % len(KINDS)](rng) for i in range(N_REQUESTS - N_SLOW)]
    n_threads = threading.active_count()
    statuses: Counter[int] = Counter()

    def check(parts: list[bytes], expected: set[int], pause_s: float) -> None:
        status, body = answer_of(impatient, parts, pause_s)
        assert status in expected, (parts[0][:300], status, body[:300])
        assert set(json.loads(body)) == {"error"}
        assert len(body) < 1000
        statuses[status] += 1

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(N_SLOW) as slowly, ThreadPoolExecutor(4) as pool:
        trickling = [slowly.submit(check, *slow(number), 0.4) for number in range(N_SLOW)]
        assert len([*pool.map(lambda one: check([one[0]], one[1], 0.0), made)]) == N_REQUESTS - N_SLOW
        check_serves(impatient)
        for one in trickling:
            one.result()
    assert sum(statuses.values()) == N_REQUESTS
    assert set(statuses) >= {400, 404, 405, 408, 413, 415, 422}
    assert all(400 <= status < 500 for status in statuses)
    assert [record.getMessage() for record in caplog.records] == []
    assert "Traceback" not in capsys.readouterr().err
    check_serves(impatient)
    assert threading.active_count() <= n_threads


def test_clients_that_say_nothing_or_go_away_are_forgotten(impatient: Served) -> None:
    whole = request("/predict", json.dumps(BODIES["/predict"]).encode())
    silent = [socket.create_connection(("127.0.0.1", impatient.port)) for _ in range(30)]
    for number in range(60):
        with socket.create_connection(("127.0.0.1", impatient.port)) as connection:
            connection.sendall(whole[: number * 3])
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    check_serves(impatient)
    for connection in silent:
        connection.settimeout(10)
        assert connection.recv(100) == b""
        connection.close()


def test_a_connection_is_used_again_and_left_alone_when_idle(impatient: Served) -> None:
    whole = request("/predict", json.dumps(BODIES["/predict"]).encode())
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=10) as connection:
        for _ in range(3):
            time.sleep(1.0)  # together longer than the limit of one header
            connection.sendall(whole)
            assert receive(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(whole * 2)  # pipelined
        received = b""
        while received.count(b'"predictions"') < 2:
            received += connection.recv(65_536)
        assert connection.recv(100) == b""


def test_an_answer_is_sent_at_once(impatient: Served) -> None:
    """With Nagle's algorithm the body of each would wait for the 40 ms that a client may take to acknowledge."""
    whole = request("/health", b"", method="GET")
    seconds = []
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=10) as connection:
        for _ in range(20):
            started = time.perf_counter()
            connection.sendall(whole)
            receive(connection)
            seconds.append(time.perf_counter() - started)
    assert min(seconds[5:]) < 0.03


def test_too_many_connections_are_sent_away(models: Models) -> None:
    with running(models, Limits(connections=10)) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(12)]
        while (answer := server.get("/health")).status_code != 503:
            time.sleep(0.05)
        assert answer.json() == {"error": "Too many connections are open; try again."}
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for connection in held:
            connection.close()
        while server.get("/health").status_code != 200:
            time.sleep(0.05)
        check_serves(server)
