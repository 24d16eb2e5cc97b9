"""Fresh processes without the price of their imports: a server imports once and forks one child per job.

`Warm("package.module:function", preload=[...])` starts the server, a process of its own that imports the function's
module and the modules of `preload` and then runs nothing else. Every `start` forks a child from it, so that no child
sees what another one computed. The child gets its own process group, arguments, folder, environment and log file,
calls `function(argv)` and ends as a Python process does, short of freeing its memory: SystemExit, Ctrl-C and uncaught
exceptions make its exit code, threads are joined, `atexit` runs. So a fault tests the job and not the harness.

    with Warm("package.module:main") as warm:
        child = warm.start(["--run", "here"], cwd=folder, log_path=folder / "log.txt")
        child.kill(signal.SIGKILL)
        assert child.wait(timeout=10) == -signal.SIGKILL

Environment variables that are read during an import belong in `Warm(env=...)`; those of `start` come later.
POSIX only. One thread may use a `Warm` and its children.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

PACKAGE_FOLDER = Path(__file__).parents[1]
POLL_S = 0.005


class Child:
    """A forked job. `pid` is also the number of its process group."""

    def __init__(self, warm: "Warm", pid: int, log_path: Path) -> None:
        self.pid = pid
        self.log_path = log_path
        self._warm = warm
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for the signal that ended the child; None while it runs."""
        if self._exit_code is None:
            self._exit_code = self._warm.ask({"poll": self.pid})["exit_code"]
        return self._exit_code

    def wait(self, timeout: float) -> int:
        """The exit code as soon as there is one.

        Raises:
            TimeoutError: the child still runs after `timeout` seconds; it is left running.
        """
        deadline = time.monotonic() + timeout
        while (exit_code := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"process {self.pid} still runs after {timeout:.3g} s")
            time.sleep(POLL_S)
        return exit_code

    def wait_for(self, text: str, timeout: float) -> None:
        """Wait until `text` is in the output.

        Raises:
            TimeoutError: it is not there after `timeout` seconds, or the child ended without it.
        """
        deadline = time.monotonic() + timeout
        while text not in self.output():
            if self.poll() is not None or time.monotonic() >= deadline:
                raise TimeoutError(f"process {self.pid} has not written {text!r}")
            time.sleep(POLL_S)

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Send `sig` to the child alone; nothing happens if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill_group(self, sig: int = signal.SIGKILL) -> None:
        """Send `sig` to the child and to the worker processes that it started, even if it has ended itself."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, sig)

    def output(self) -> str:
        """What the child has written to its standard output and error so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")


class Warm:
    """A server that has imported `target` ("package.module:function") and forks children which call it.

    Raises:
        RuntimeError: the imports failed or started threads, which a fork would lose; the message holds the output.
    """

    def __init__(self, target: str, preload: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        variables = {**os.environ, **(env or {})}
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE_FOLDER), variables.get("PYTHONPATH")]))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "faults.warm", target, *preload], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, encoding="utf-8", start_new_session=True, env=variables,
        )
        self._read()

    def start(
        self, argv: Sequence[str], cwd: Path, log_path: Path, env: Mapping[str, str] | None = None
    ) -> Child:
        """Fork a child that calls the target with `argv` in the folder `cwd`; its output is added to `log_path`."""
        log_path.touch()
        request = {"argv": list(argv), "cwd": str(cwd), "log": str(log_path.resolve()), "env": dict(env or {})}
        return Child(self, self.ask({"start": request})["pid"], log_path)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request to the server and return its answer."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the server; it kills the children that still run, with their process groups."""
        for stream in (self._server.stdin, self._server.stdout, self._errors):
            if stream is not None:
                stream.close()
        self._server.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        if line := self._server.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._errors.seek(0)
        output = self._errors.read().decode("utf-8", errors="replace")
        self.close()
        raise RuntimeError(f"the warm process ended:\n{output}")


def serve(requests: IO[str], answers: IO[str]) -> dict[str, Any] | None:
    """Answer requests until they end. Returns in every process: its request in a forked child, None in the server."""
    running: set[int] = set()
    for line in requests:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if "start" in request:
            if (pid := os.fork()) == 0:
                answers.close()
                start: dict[str, Any] = request["start"]
                return start
            with contextlib.suppress(PermissionError, ProcessLookupError):  # the child was faster, or is gone
                os.setpgid(pid, pid)
            running.add(pid)
            answer["pid"] = pid
        else:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer["exit_code"] = os.waitstatus_to_exitcode(status) if pid else None
            running.discard(pid)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return None


def become(job: dict[str, Any]) -> list[str]:
    """Give a forked child what a process of its own would have. Returns its arguments."""
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    with open(os.devnull, "rb") as empty, open(job["log"], "ab") as log:
        os.dup2(empty.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a harness in the background is deaf to Ctrl-C
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    sys.argv[1:] = job["argv"]
    random.seed()  # unseeded generators must differ between processes
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    return list(job["argv"])


def call_to_the_end(call: Callable[[list[str]], Any], argv: list[str]) -> NoReturn:
    """Call the job and end the process as the interpreter would; freeing what the imports hold would take 0.5 s."""
    exit_code, interrupted = 0, False
    try:
        call(argv)
    except SystemExit as stop:
        exit_code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        exit_code, interrupted = 1, isinstance(error, KeyboardInterrupt)
    threading._shutdown()  # type: ignore[attr-defined] # as multiprocessing ends its forks
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(exit_code & 0xFF)


def main() -> None:
    """The server, and in every fork of it one job."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an import prints is no answer
    target, *preload = sys.argv[1:]
    for name in preload:
        importlib.import_module(name)
    module, _, function = target.partition(":")
    call = getattr(importlib.import_module(module), function)
    if threading.active_count() > 1:
        raise RuntimeError(f"importing {target} started threads: {threading.enumerate()}")
    gc.freeze()  # a collection in a child would copy every page of the imports
    answers.write(json.dumps({"pid": os.getpid()}) + "\n")
    answers.flush()
    job = serve(requests, answers)
    if job is not None:
        requests.close()
        call_to_the_end(call, become(job))


if __name__ == "__main__":
    main()
