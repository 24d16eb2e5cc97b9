"""HTTP/1.1 connections that bad or slow clients cannot keep open or bring to a traceback."""

import asyncio
import json
import socket
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.serving.guard import SECURITY_HEADERS

LINGER_S = 2.0
"""How long a client that was refused may go on sending before the connection is closed."""


class Connection(H11Protocol):
    """uvicorn's connection with a time limit on a request's header, and JSON for what is no HTTP or one too many.

    uvicorn waits for a header as long as its bytes trickle in.
    """

    def __init__(self, *args: Any, header_s: float, at_most: int, **kwargs: Any) -> None:
        """`at_most` connections are answered at a time."""
        super().__init__(*args, **kwargs)
        self._header_s, self._at_most = header_s, at_most
        self._header_timer: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; its request's header is awaited."""
        super().connection_made(transport)
        # asyncio does it only for sockets made with the number of TCP, which socket.create_server leaves out: an
        # answer's body would wait 40 ms for the client to acknowledge its header.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_header()

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        if self._refused:
            return
        if len(self.connections) > self._at_most and (self.cycle is None or self.cycle.response_complete):
            what = "Too many connections are open; try again."
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, what, ("retry-after", "1"))
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_awaiting()

    def on_response_complete(self) -> None:
        """The next request's header is awaited; what is left of this one's body falls under the same limit."""
        self._await_header()
        super().on_response_complete()
        if not self.cycle.response_complete:  # a pipelined request has begun
            self._stop_awaiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_awaiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """The bytes are no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _await_header(self) -> None:
        self._stop_awaiting()
        self._header_timer = self.loop.call_later(self._header_s, self._header_is_late)

    def _stop_awaiting(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_is_late(self) -> None:
        begun = bool(self.conn.trailing_data[0])
        if begun:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"The request's header took over {self._header_s:g} seconds.")
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, what: str, *more_headers: tuple[str, str]) -> None:
        """Answer, if no other answer has begun, and close."""
        if self.transport.is_closing() or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = json.dumps({"error": what}).encode()
        headers = [
            *SECURITY_HEADERS.items(), ("content-type", "application/json"), ("content-length", str(len(body))),
            ("connection", "close"), *more_headers,
        ]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=status.phrase), h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        # A client that still sends would lose the answer if it were closed at once: the kernel resets such connections.
        self._refused = True
        self.transport.write_eof()
        self._stop_awaiting()
        self._header_timer = self.loop.call_later(LINGER_S, self.transport.close)
