"""What every request passes: the key, the headers that keep browsers safe, a time limit, the counters."""

import asyncio
import hmac
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.metrics import Metrics

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, key: str | None, public: Collection[str], known: Collection[str],
        whole_s: float,
    ) -> None:
        """`public` paths need no key; `known` ones have counters of their own; `whole_s` is the time of a request."""
        self._app, self._metrics, self._known, self._whole_s = app, metrics, frozenset(known), whole_s
        self._key, self._public = None if key is None else key.encode(), frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer 401."""
        started, status = time.perf_counter(), 0
        path = scope["path"] if scope["path"] in self._known else "other"

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            async with asyncio.timeout(self._whole_s):
                if self._may_pass(scope):
                    await self._app(scope, receive, guarded)
                else:
                    refusal = JSONResponse(
                        {"error": "This server needs a key: Authorization: Bearer KEY."}, 401,
                        {"WWW-Authenticate": "Bearer"},
                    )
                    await refusal(scope, receive, guarded)
        except TimeoutError:
            return  # the client does not read its answer; uvicorn closes the connection
        except Exception:  # a defect, which uvicorn logs
            if not status:
                defect = JSONResponse({"error": "The server has a defect; its log says more."}, 500)
                await defect(scope, receive, guarded)
            raise
        finally:
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _may_pass(self, scope: Scope) -> bool:
        if self._key is None or scope["path"] in self._public:
            return True
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._key)
