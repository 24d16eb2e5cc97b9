"""A real server in this process, on a free port."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from pipeline.progress import Reporter
from pipeline.serving.app import Service
from pipeline.serving.limits import Limits
from pipeline.serving.models import Models
from pipeline.serving.server import HttpServer


@dataclass(frozen=True)
class Served:
    """Where the server is."""

    port: int
    http: HttpServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: object, **options: object) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **options)  # type: ignore[arg-type]

    def get(self, path: str, **options: object) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def running(models: Models, limits: Limits | None = None, key: str | None = None) -> Iterator[Served]:
    """A server that stops at the end of the block."""
    listening = socket.create_server(("127.0.0.1", 0))
    http = HttpServer(Service(models, limits or Limits(), key, Reporter(), threads=1), listening)
    http.start()
    try:
        yield Served(listening.getsockname()[1], http)
    finally:
        http.stop()
        assert not http.alive
