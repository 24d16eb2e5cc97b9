"""The `serve` command: models are loaded once, then answered for until a signal asks to stop."""

import functools
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, cast

import torch
import uvicorn

from pipeline import stopping
from pipeline.errors import InputError, UsageError
from pipeline.inference.models import run_settings
from pipeline.machine import usable_cores
from pipeline.progress import Reporter
from pipeline.serving.app import Service
from pipeline.serving.connection import Connection
from pipeline.serving.limits import Limits
from pipeline.serving.models import Models
from pipeline.settings import PredictionSettings
from pipeline.training.device import keep_freed_memory

KEY_VARIABLE = "STAGED_ULMFIT_API_KEY"
MIN_KEY_CHARACTERS = 16
MAX_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True)
class ServeRequest:
    """What was asked for on the command line."""

    models: tuple[str, ...]
    """Folders of sealed classifiers, or runs."""
    language_model: str | None
    host: str
    port: int
    """0: any that is free."""
    api_key_file: Path | None
    limits: Limits
    precision: str = "auto"
    device: str = "auto"
    home: Path = Path()


def serve(request: ServeRequest, reporter: Reporter) -> None:
    """Answer requests until a stop is asked for; then finish those that were accepted.

    Raises UsageError for an address or key that cannot be used, InputError for a model that cannot be loaded.
    """
    key = _key(request.api_key_file)
    listening = _listen(request.host, request.port)
    with listening:
        settings = run_settings(request.precision, request.device, PredictionSettings)
        keep_freed_memory()
        models = Models.load(request.models, request.language_model, request.home, settings)
        http = HttpServer(Service(models, request.limits, key, reporter, _prediction_threads()), listening)
        # uvicorn leaves signals alone in any thread but the main one: they are read as in every other command.
        with stopping.signals_ask(reporter, "finishing what was accepted"):
            http.start()
            for line in _said(models, listening, key):
                reporter.line(line)
            while http.alive and stopping.asked() is None:
                time.sleep(0.1)
            ended_by_itself = not http.alive
            http.stop()
    if ended_by_itself:
        raise RuntimeError("the HTTP server ended without being asked to")
    reporter.line("serve: stopped")


class HttpServer:
    """uvicorn, answering for a service in a thread of its own."""

    def __init__(self, service: Service, listening: socket.socket) -> None:
        limits = service.limits
        connection = functools.partial(Connection, header_s=limits.header_s, at_most=limits.connections)
        config = uvicorn.Config(
            service.app, http=cast(Any, connection), loop="asyncio", ws="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=ceil(limits.header_s),
            timeout_graceful_shutdown=ceil(limits.whole_s), h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # clients that speak no HTTP are no news
        self._service, self._server = service, uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, name="http")

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False once it has ended."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Accept nothing more, finish what was accepted, end."""
        self._server.should_exit = True
        self._thread.join()
        self._service.close()


def _prediction_threads() -> int:
    """As OMP_NUM_THREADS says, else one less than there are cores.

    The threads of a batch wait for each other after every token: if one has to share its core with the threads that
    talk to clients, all stand still. On two cores one thread answers five times as fast as two (CHANGELOG.md).
    """
    threads = torch.get_num_threads()
    return threads if os.environ.get("OMP_NUM_THREADS") else max(min(threads, usable_cores() - 1), 1)


def _said(models: Models, listening: socket.socket, key: str | None) -> list[str]:
    """The lines that tell what is served, where and to whom."""
    host, port = listening.getsockname()[:2]
    lines = [f"serve: classifier {name}: {b.path}, {b.classifier.device.describe()}"
             for name, b in models.classifiers.items()]
    if models.language_model is not None:
        name, lm = models.language_model
        lines.append(f"serve: language model {name}: {lm.path}, {lm.device.describe()}")
    if key is None and not host.startswith("127.") and host != "::1":
        lines.append(f"serve: WARNING: anybody who reaches {host} may ask; set a key with --api-key-file")
    shown = f"[{host}]" if ":" in host else host
    return [*lines, f"serve: listening on http://{shown}:{port}/ {'without' if key is None else 'with'} a key"]


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError, UnicodeError) as error:  # the last: a name that is none
        raise UsageError(
            f"{host}:{port} cannot be listened on: {error}.", "Choose another --host or --port; 0 takes any free port."
        ) from error


def _key(path: Path | None) -> str | None:
    """The key in a file, or in the environment; None: everybody may ask."""
    where, key = KEY_VARIABLE, os.environ.get(KEY_VARIABLE)
    if path is not None:
        try:
            where, key = str(path), path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--api-key-file {path} cannot be read: {error}.", "It is one line of ASCII.") from error
    if key is None:
        return None
    key = key.strip()
    if len(key) < MIN_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"The key in {where} is not one word of {MIN_KEY_CHARACTERS} or more ASCII characters.",
            "Make one: openssl rand -hex 32",
        )
    return key
