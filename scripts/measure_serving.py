"""Measure a served classifier against the same one behind fastai's `learn.predict`, over HTTP, on this machine.

    python scripts/measure_serving.py --model models/imdb-5000-word-fwd/classifier-fwd

Ours is `python -m pipeline serve`, as it is; fastai's is the server its course deploys: starlette and uvicorn, an
endpoint that calls `learn.predict`. Each is a process of its own and they are asked in turn: first one 200-word review
at a time, then by 32 clients at once, each over a connection that stays open. Medians of the repeats are printed, and
both have to give the same classes. The classifier must read words forwards. About four minutes.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pipeline.benchmark.data import reviews

ROOT = Path(__file__).resolve().parents[1]
N_REVIEWS, WORDS, CLIENTS = 64, 200, 32
SINGLES, SECONDS = {"ours": 200, "fastai": 60}, 12.0


@dataclass(frozen=True)
class Figures:
    """One repeat of one side."""

    p50_ms: float
    p95_ms: float
    documents_per_s: float
    processor_ms: float
    """Of the server for each document under many clients: what other work on the machine changes least."""


# --- fastai's side, in a process of its own -------------------------------------------------------


def fastai_server(folder: Path, port: int) -> None:
    """Answer POST / with what `learn.predict` says; runs until it is killed."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    learn = fastai_learner(folder)

    async def predict(request: Request) -> JSONResponse:
        label, _, probabilities = learn.predict((await request.json())["text"])
        return JSONResponse({"label": str(label), "probabilities": probabilities.tolist()})

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({})

    with learn.no_bar():
        routes = [Route("/", predict, methods=["POST"]), Route("/health", health)]
        uvicorn.run(Starlette(routes=routes), port=port, log_level="error")


def fastai_learner(folder: Path) -> Any:
    """fastai's own learner with the weights, vocabulary and labels of the classifier in `folder`."""
    import pandas as pd
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import ColReader, RandomSplitter
    from fastai.text.data import TextBlock
    from fastai.text.learner import text_classifier_learner
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config

    from pipeline.model.architecture import Architecture, HeadShape
    from pipeline.model.weights import load_classifier
    from pipeline.text.vocabulary import read_vocabulary

    architecture, head = Architecture.load(folder / "architecture.json"), HeadShape.load(folder / "head.json")
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    vocabulary = read_vocabulary(folder)
    vocabulary += ["xxfake"] * (architecture.rows - len(vocabulary))
    table = pd.DataFrame({"text": ["a film"] * 8 * len(labels), "label": labels * 8})
    block = DataBlock(
        blocks=(TextBlock.from_df("text", vocab=vocabulary), CategoryBlock(vocab=labels)), get_x=ColReader("text"),
        get_y=ColReader("label"), splitter=RandomSplitter(seed=0),
    )
    sizes = {"emb_sz": architecture.emb_sz, "n_hid": architecture.n_hid, "n_layers": architecture.n_layers}
    learn = text_classifier_learner(
        block.dataloaders(table, bs=2), AWD_LSTM, config={**awd_lstm_clas_config, **sizes}, pretrained=False,
        seq_len=head.seq_len, max_len=head.max_len, lin_ftrs=list(head.lin_ftrs),
    )
    load_classifier(learn.model, folder)
    return learn


# --- asking ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(command: Sequence[str], port: int) -> Iterator[int]:
    """A server in a process of its own, ready to answer; its process id."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
            with contextlib.suppress(OSError):
                asyncio.run(ask_all(port, [b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"]))
                break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def request(path: str, body: dict[str, Any]) -> bytes:
    """The bytes of a POST."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def processor_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask_all(port: int, requests: Sequence[bytes], until: float = float("inf")) -> list[tuple[float, Any]]:
    """Seconds and answer of each request, one after the other over one connection; none is begun after `until`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    for data in requests:
        started = time.perf_counter()
        if started > until:
            break
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if not head.startswith(b"http/1.1 200"):
            raise SystemExit(f"refused: {answer}")
        found.append((time.perf_counter() - started, answer))
    writer.close()
    return found


def measure(port: int, pid: int, requests: Sequence[bytes], n_singles: int) -> Figures:
    """One client, then CLIENTS at once."""
    singles = asyncio.run(ask_all(port, [requests[i % len(requests)] for i in range(n_singles)]))
    times = [1000 * seconds for seconds, _ in singles]

    async def together() -> int:
        until = time.perf_counter() + SECONDS
        endless = [[requests[(i + client) % len(requests)] for i in range(100_000)] for client in range(CLIENTS)]
        return sum(map(len, await asyncio.gather(*(ask_all(port, one, until) for one in endless))))

    started, used = time.perf_counter(), processor_s(pid)
    n_documents = asyncio.run(together())
    seconds, used = time.perf_counter() - started, processor_s(pid) - used
    return Figures(median(times), quantiles(times, n=20)[-1], n_documents / seconds, 1000 * used / n_documents)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a sealed word classifier")
    parser.add_argument("--port", type=int, default=8790, help="this one and the next have to be free")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fastai-server", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.model.resolve()
    if given.fastai_server:
        fastai_server(folder, given.port)
        return
    texts = reviews(np.full(N_REVIEWS, WORDS), np.random.default_rng(1))
    sides = {
        "ours": (
            given.port, [sys.executable, "-m", "pipeline", "serve", "--model", str(folder), "--port", str(given.port)],
            [request("/predict", {"texts": [text]}) for text in texts],
        ),
        "fastai": (
            given.port + 1,
            [sys.executable, __file__, "--model", str(folder), "--port", str(given.port + 1), "--fastai-server"],
            [request("/", {"text": text}) for text in texts],
        ),
    }
    with contextlib.ExitStack() as servers:
        answers: dict[str, list[str]] = {}
        pids = {}
        for name, (port, command, requests) in sides.items():
            pids[name] = servers.enter_context(running(command, port))
            answered = [answer for _, answer in asyncio.run(ask_all(port, requests))]  # also warms it up
            answers[name] = [answer.get("label") or answer["predictions"][0]["label"] for answer in answered]
        agree = sum(one == other for one, other in zip(*answers.values(), strict=True))
        print(f"{folder}: the classes of {agree} of {len(texts)} reviews agree; {os.cpu_count()} cores")
        found: dict[str, list[Figures]] = {name: [] for name in sides}
        for _ in range(given.repeats):
            for name, (port, _, requests) in sides.items():
                found[name].append(measure(port, pids[name], requests, SINGLES[name]))
    shown = {
        "p50_ms": "p50, ms", "p95_ms": "p95, ms", "documents_per_s": f"documents/s, {CLIENTS} clients",
        "processor_ms": "processor ms per document",
    }
    print(f"{'':<28}{'ours':>10}{'fastai':>10}{'times':>9}")
    for name, text in shown.items():
        ours, theirs = (median(getattr(one, name) for one in found[side]) for side in sides)
        times = ours / theirs if name == "documents_per_s" else theirs / ours
        print(f"{text:<28}{ours:10.1f}{theirs:10.1f}{times:8.1f}x")


if __name__ == "__main__":
    main()
