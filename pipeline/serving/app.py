"""The web application: endpoints, the page, and JSON for everything that goes wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib import resources
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.errors import PipelineError
from pipeline.inference.bundle import ClassifierBundle
from pipeline.inference.explanation import explain
from pipeline.inference.generate import Sample, Sampling, generate
from pipeline.progress import Reporter
from pipeline.serving.bodies import ExplainBody, GenerateBody, PredictBody
from pipeline.serving.guard import Guard
from pipeline.serving.limits import Limits
from pipeline.serving.metrics import CONTENT_TYPE, Metrics
from pipeline.serving.models import Models
from pipeline.serving.openapi import document
from pipeline.serving.work import Busy, MicroBatcher, SlowLane

PAGE_FILES = {
    "/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
PUBLIC = {*PAGE_FILES, "/health", "/openapi.json"}
"""Paths that need no key: they tell nothing about the models but their names and labels."""
Body = TypeVar("Body", bound=BaseModel)
Answer = TypeVar("Answer")


class Service:
    """The models, their workers and the counters of one server."""

    def __init__(self, models: Models, limits: Limits, key: str | None, reporter: Reporter, threads: int) -> None:
        self.limits = limits
        self._models, self._reporter = models, reporter
        self._metrics = Metrics()
        # First the one with one core: torch gives later threads the number that was set last.
        self._slow = SlowLane(limits.slow_waiting)
        self._batcher = MicroBatcher(self._metrics, limits.waiting, threads)
        routes = [
            Route("/predict", self._predict, methods=["POST"]), Route("/explain", self._explain, methods=["POST"]),
            Route("/health", _fixed({"status": "ok"})), Route("/models", _fixed(self._described())),
            Route("/metrics", self._counters), Route("/openapi.json", _fixed(document(models, key is not None))),
            *(Route(path, _page(name, kind)) for path, (name, kind) in PAGE_FILES.items()),
        ]
        if models.language_model is not None:
            routes.append(Route("/generate", self._generate, methods=["POST"]))
        guard = Middleware(
            Guard, metrics=self._metrics, key=key, public=PUBLIC, known=[route.path for route in routes],
            whole_s=limits.whole_s,
        )
        self.app = Starlette(
            routes=routes, middleware=[guard],
            exception_handlers={
                HTTPException: _refused, PipelineError: self._failed, ClientDisconnect: _gone,
            },
        )
        self.app.router.redirect_slashes = False

    def close(self) -> None:
        """Finish what was accepted and end the threads."""
        self._batcher.close()
        self._slow.close()

    async def _predict(self, request: Request) -> Response:
        body = await self._body(request, PredictBody)
        name, bundle = self._classifier(body.model)
        found = await self._in_time(request, self._batcher.probabilities(bundle, body.texts))
        predictions = [
            {
                "label": bundle.labels[int(row.argmax())], "probability": float(row.max()),
                "probabilities": dict(zip(bundle.labels, row.tolist(), strict=True)),
            }
            for row in found
        ]
        return JSONResponse({"model": name, "predictions": predictions})

    async def _explain(self, request: Request) -> Response:
        body = await self._body(request, ExplainBody)
        name, bundle = self._classifier(body.model)
        if body.label is not None and body.label not in bundle.labels:
            raise HTTPException(422, f"label: {name} has {', '.join(map(repr, bundle.labels))}.")
        found = await self._in_time(
            request, self._slow.run(lambda check: explain(bundle, body.text, body.method, body.label, check))
        )
        return JSONResponse({"model": name, **found.to_dict()})

    async def _generate(self, request: Request) -> Response:
        body = await self._body(request, GenerateBody)
        assert self._models.language_model is not None
        name, bundle = self._models.language_model
        sampling = Sampling(
            body.temperature, body.top_k, body.top_p, body.min_p, body.repetition_penalty, body.max_tokens, body.seed
        )

        def write(check: Callable[[], None]) -> list[Sample]:
            for samples in generate(bundle, body.prompt, sampling, body.samples):  # noqa: B007  # the last are whole
                check()
            return samples

        found = await self._in_time(request, self._slow.run(write))
        return JSONResponse({
            "model": name,
            "samples": [{"text": one.text, "written": one.written, "ended": one.ended} for one in found],
        })

    async def _counters(self, request: Request) -> Response:
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    def _described(self) -> dict[str, Any]:
        lm = self._models.language_model
        return {
            "classifiers": [
                {
                    "name": name, "labels": bundle.labels, "direction": bundle.classifier.direction,
                    "device": str(bundle.classifier.device.device), "precision": bundle.classifier.device.precision,
                }
                for name, bundle in self._models.classifiers.items()
            ],
            "language_model": None if lm is None else {"name": lm[0], "direction": lm[1].direction},
        }

    def _classifier(self, name: str | None) -> tuple[str, ClassifierBundle]:
        classifiers = self._models.classifiers
        if name is None:
            return next(iter(classifiers.items()))
        if name not in classifiers:
            raise HTTPException(404, f"There is no such model; there are: {', '.join(classifiers)}.")
        return name, classifiers[name]

    async def _body(self, request: Request, kind: type[Body]) -> Body:
        """The checked body of a request; HTTPException says what is wrong with it."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "Send application/json.")
        data = await self._received(request)
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            if first["type"] == "json_invalid":
                raise HTTPException(400, f"The body is not JSON in UTF-8: {first['msg']}.") from None
            # The names in the place of an unknown key are the client's own, and may be long.
            where = ".".join(map(str, first["loc"]))[:100]
            raise HTTPException(422, f"{where}: {first['msg']}." if where else f"{first['msg']}.") from None

    async def _received(self, request: Request) -> bytes:
        most = self.limits.body_bytes
        too_large = HTTPException(413, f"The body has over {most:,} bytes, the most a request may have.")
        if int(request.headers.get("content-length", 0)) > most:
            raise too_large
        data = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for part in request.stream():
                    data += part
                    if len(data) > most:
                        raise too_large
        except TimeoutError:
            what = f"The body took over {self.limits.body_s:g} seconds."
            raise HTTPException(408, what, {"connection": "close"}) from None
        return bytes(data)

    async def _in_time(self, request: Request, work: Awaitable[Answer]) -> Answer:
        try:
            async with asyncio.timeout(self.limits.request_s):
                return await _while_wanted(request, work)
        except Busy:
            raise HTTPException(503, "Too many requests wait; try again.", {"retry-after": "1"}) from None
        except TimeoutError:
            what = f"The answer took over {self.limits.request_s:g} seconds; send less, or try again."
            raise HTTPException(503, what, {"retry-after": "5"}) from None

    async def _failed(self, request: Request, error: Exception) -> Response:
        self._reporter.line(f"error: {request.url.path}: {error}")
        return JSONResponse({"error": "The model could not answer; the server's log says why."}, 500)


async def _while_wanted(request: Request, work: Awaitable[Answer]) -> Answer:
    """What `work` returns. It is cancelled when the client goes away: ClientDisconnect; and when we are."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    """Returns when the client of a request whose body was read has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow", "")
    what = {
        404: "There is nothing here; /openapi.json tells what there is.", 405: f"Only {allowed} is answered here.",
    }.get(error.status_code, "")
    by_starlette = error.detail == HTTPStatus(error.status_code).phrase
    return JSONResponse({"error": what if by_starlette else error.detail}, error.status_code, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "The client went away."}, 400)


def _fixed(answer: dict[str, Any]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(answer)

    return endpoint


def _page(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    data = resources.files("pipeline.serving").joinpath("page", name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(data, media_type=kind)

    return endpoint
