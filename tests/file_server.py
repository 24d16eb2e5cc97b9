"""A web server on this machine that publishes one file, as badly as a test asks for."""

import contextlib
import hashlib
import http.server
import threading
from types import TracebackType
from typing import Any, Self

from pipeline.published import PublishedFile, SizeAndStart, WholeSum


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under every name without `gone`; the first `cuts` answers end after half of what they promise.

    Use it as a context manager.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.cuts = 0
        self.ranges = True
        self.asked: list[str | None] = []
        """The range that each request asked for."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def file(self, name: str = "aclImdb_v1.tar.gz") -> PublishedFile:
        """What the server publishes now, with the sum of the whole file."""
        return PublishedFile(self.url(name), WholeSum(hashlib.md5(self.content).hexdigest()))

    def file_with_size(self, name: str) -> PublishedFile:
        """What the server publishes now, with its size and the sum of its start."""
        start = hashlib.md5(self.content[: 2**20]).hexdigest()
        return PublishedFile(self.url(name), SizeAndStart(len(self.content), start))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if "gone" in self.path:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        body, size = self.server.content[start:], len(self.server.content)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        with contextlib.suppress(ConnectionError):  # a client that was stopped
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""
