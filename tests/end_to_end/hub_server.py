"""A Hugging Face Hub on this machine: the requests that an upload of a folder makes, and the files that came of it."""

import base64
import hashlib
import http.server
import json
import threading
from types import TracebackType
from typing import Any, Self


class Hub(http.server.ThreadingHTTPServer):
    """Takes one model repository. Use it as a context manager."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.refuse: dict[str, int] = {}
        """Status to answer requests with whose path ends so."""
        self.instead: dict[str, tuple[int, str]] = {}
        """Or status and body, JSON or the page of another server."""
        self.made: list[dict[str, Any]] = []
        """What was asked of each new repository."""
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        """Content of each file that was committed."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """What the Hub's own API answers to a POST (its OpenAPI document tells it)."""
        if path.endswith("/commit/main"):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "lfsFile":
                    self.files[entry["value"]["path"]] = self.blobs[entry["value"]["oid"]]
            return {"commitUrl": f"{self.url}/me/film/commit/1", "commitOid": "1", "success": True}
        asked = json.loads(body)
        if path == "/api/repos/create":
            self.made.append(asked)
            return {"url": f"{self.url}/{asked.get('organization') or 'me'}/{asked['name']}"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            modes = (("lfs" if f["path"].endswith(".safetensors") else "regular", f["path"]) for f in asked["files"])
            return {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for mode, path in modes]}
        assert path.endswith("/info/lfs/objects/batch"), path
        uploads = [
            {**wanted, "actions": {"upload": {"href": f"{self.url}/blob/{wanted['oid']}"}}}
            for wanted in asked["objects"]
        ]
        return {"transfer": "basic", "objects": uploads}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, answer: dict[str, Any] | str) -> None:
        content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if content.startswith(b"<") else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        body, path = self._body(), self.path.partition("?")[0]
        instead = next((answer for end, answer in self.server.instead.items() if path.endswith(end)), None)
        refused = next((status for end, status in self.server.refuse.items() if path.endswith(end)), None)
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._send(401, {"error": "Invalid credentials in Authorization header"})
        elif instead is not None:
            self._send(*instead)
        elif refused is not None:
            self._send(refused, {"error": f"refused with {refused}"})
        else:
            self._send(200, self.server.answer(path, body))

    def do_GET(self) -> None:
        self._send(404, {"error": "Repository not found"})

    def do_PUT(self) -> None:
        content, oid = self._body(), self.path.rsplit("/", 1)[-1]
        assert hashlib.sha256(content).hexdigest() == oid
        if "/blob/" in self.server.instead:
            self._send(*self.server.instead["/blob/"])
            return
        self.server.blobs[oid] = content
        self._send(200, {})

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""
