"""Tokenizing a corpus piece by piece, in worker processes or here; workers import neither torch nor fastai.

A shard is one row group of the corpus, whatever the number of workers, and becomes one file; files are put together
in corpus order, so the result does not depend on who made which. What workers know of words they would all have to
learn, so where the tokenizer has a splitter they cut texts into pieces and this process makes the tokens.
"""

import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline import stopping
from pipeline.errors import OutOfMemoryError, PipelineError, StorageError, UsageError
from pipeline.machine import usable_cores
from pipeline.progress import Reporter
from pipeline.provenance import this_process
from pipeline.storage import write_durably
from pipeline.text.encoding import EncodedBatch
from pipeline.text.tokenizer import Tokenizer, load_tokenizer

BATCH_CHARS = 8_000_000
"""Characters tokenized in one call: some 6,000 reviews, or one long document."""
ONE_PROCESS_BYTES = 2 * 2**20
"""A smaller corpus is tokenized before a second process would have started."""
READ_DOCUMENTS = 250
POLL_S = 0.2
"""Time between two looks for a request to stop while the workers are busy."""
_DIGEST_BYTES = hashlib.sha256().digest_size


class Encoder(Protocol):
    """A tokenizer, or the part of one that cuts texts into pieces."""

    def encode(self, texts: Sequence[str]) -> EncodedBatch:
        """Types and ids of many texts."""
        ...


class ShardTokenizer:
    """Encodes row groups of one corpus file; each worker process has one."""

    def __init__(self, documents: Path, folder: Path) -> None:
        self._documents, self._folder = documents, folder

    def make(self, shard: int, encoder: Encoder) -> Path:
        """The file of row group `shard`: types, ids and lengths. One that is there already is taken as it is."""
        path = self._folder / f"{shard:06d}.shard"
        if not path.exists():
            write_shard(path, merge(encoder.encode(texts) for texts in self._batches(shard)))
        return path

    def make_again(self, shard: int, encoder: Encoder) -> Path:
        """The file of row group `shard`, made anew in place of a damaged one, which is set aside."""
        path = self._folder / f"{shard:06d}.shard"
        path.rename(path.with_suffix(".damaged"))
        return self.make(shard, encoder)

    def _batches(self, shard: int) -> Iterator[list[str]]:
        texts: list[str] = []
        size = 0
        with pq.ParquetFile(self._documents) as file:
            for batch in file.iter_batches(READ_DOCUMENTS, row_groups=[shard], columns=["text"]):
                for text in batch.column(0).to_pylist():
                    if texts and size + len(text) > BATCH_CHARS:
                        yield texts
                        texts, size = [], 0
                    texts.append(text)
                    size += len(text)
        yield texts


def merge(batches: Iterator[EncodedBatch]) -> EncodedBatch:
    """Batches, in order, as one."""
    numbers: dict[str, int] = {}
    ids: list[npt.NDArray[np.uint32]] = []
    lengths: list[npt.NDArray[np.int64]] = []
    for batch in batches:
        local = np.array([numbers.setdefault(t, len(numbers)) for t in batch.types], dtype=np.uint32)
        ids.append(local[batch.ids])
        lengths.append(batch.lengths)
    return EncodedBatch(list(numbers), np.concatenate(ids), np.concatenate(lengths))


def write_shard(path: Path, batch: EncodedBatch) -> None:
    """Write a shard file, complete or not at all: the SHA-256 of all that follows, then lengths, ids and types."""
    types = json.dumps(batch.types, ensure_ascii=False).encode("utf-8", "surrogatepass")
    content = io.BytesIO()
    for part in (batch.lengths, batch.ids, np.frombuffer(types, dtype=np.uint8)):
        np.save(content, part)
    data = content.getvalue()
    # Jobs that make the same shard at the same time write the same, each in a file of its own.
    process = this_process()
    write_durably(path, hashlib.sha256(data).digest() + data, writer=f"{process['host']}-{process['pid']}")


def read_shard(path: Path) -> EncodedBatch | None:
    """What `write_shard` wrote; None if it is damaged."""
    data = path.read_bytes()
    content = memoryview(data)[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != data[:_DIGEST_BYTES]:
        return None
    stream = io.BytesIO(content)
    lengths, ids, types = (np.load(stream, allow_pickle=False) for _ in range(3))
    return EncodedBatch(json.loads(types.tobytes()), ids, lengths)


def make_shards(
    documents: Path, tokenizer: Tokenizer, tokenizer_folder: Path, folder: Path, *, row_groups: Sequence[int],
    workers: int,
) -> Iterator[Path]:
    """The file of each of `row_groups` of `documents`, in order; `folder` keeps them.

    `workers` 0 is one per core, or one for little text.
    """
    with pq.ParquetFile(documents) as file:
        size = sum(file.metadata.row_group(i).total_byte_size for i in row_groups)
    by_default = 1 if size < ONE_PROCESS_BYTES else usable_cores()
    workers = min(workers or by_default, max(len(row_groups), 1))
    if workers > 1:
        return _made_by_workers(documents, tokenizer, tokenizer_folder, folder, row_groups=row_groups, workers=workers)
    here = ShardTokenizer(documents, folder)
    return (here.make(shard, tokenizer.splitter or tokenizer) for shard in row_groups)


def tokenize_shards(
    documents: Path, tokenizer: Tokenizer, tokenizer_folder: Path, folder: Path, *, workers: int, reporter: Reporter
) -> Iterator[EncodedBatch]:
    """Every row group of `documents` in order. `folder` keeps the finished ones; `workers` as in `make_shards`.

    Raises Stopped between two shards if a stop was asked for; those that are being made are finished first.
    """
    with pq.ParquetFile(documents) as file:
        n_shards = file.metadata.num_row_groups
    here = ShardTokenizer(documents, folder)
    made = make_shards(
        documents, tokenizer, tokenizer_folder, folder, row_groups=range(n_shards), workers=workers
    )
    for shard, path in enumerate(made):
        batch = read_shard(path)
        if batch is None:
            reporter.line(f"tokenize_corpus: {path.name} is damaged; set aside and made anew")
            batch = read_shard(here.make_again(shard, tokenizer.splitter or tokenizer))
            if batch is None:
                raise StorageError(f"{path} does not read back as it was written.", "Use another disk, or check it.")
        yield tokenizer.join(batch)
        stopping.check(f"tokenize_corpus after shard {shard + 1} of {n_shards}")


def _made_by_workers(
    documents: Path, tokenizer: Tokenizer, tokenizer_folder: Path, folder: Path, *, row_groups: Sequence[int],
    workers: int,
) -> Iterator[Path]:
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _set_up, (documents, folder)
    ) as pool:
        waiting: deque[Future[Path]] = deque()
        others, processes = set(multiprocessing.active_children()), set[BaseProcess]()
        try:
            with stopping.kept_from_children():
                for _ in range(workers):
                    pool.submit(_awake)
                    processes |= set(multiprocessing.active_children()) - others
            encoder = tokenizer.splitter or tokenizer_folder  # may import spaCy, which takes as long as they to start
            for shard in row_groups:
                with stopping.kept_from_children():
                    waiting.append(pool.submit(_make, shard, encoder))
                if len(waiting) > 2 * workers:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        except BrokenProcessPool as error:
            raise _lost_worker(pool, processes) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _lost_worker(pool: ProcessPoolExecutor, processes: set[BaseProcess]) -> PipelineError:
    """End the others of the broken `pool`, and tell whether the lost one was killed or ended by itself.

    The pool sends them SIGTERM, which they never see, and waits; one may wait for a lock that the lost one held.
    """
    ready = wait([process.sentinel for process in processes], timeout=0)
    gone = [process for process in processes if process.sentinel in ready]
    for process in processes:
        process.kill()
    pool.shutdown()
    if gone and all(process.exitcode != -signal.SIGKILL for process in gone):
        return UsageError(
            "A worker process of tokenize_corpus ended by itself; what it said is above.",
            "A script that runs the pipeline must do so under if __name__ == '__main__':, since each worker imports "
            "it. To do without workers: --set tokenize_corpus.workers=1.",
        )
    return OutOfMemoryError(
        "A worker process of tokenize_corpus was killed, most likely for lack of memory.",
        f"Give fewer than {len(processes)} workers: --set tokenize_corpus.workers=1.",
    )


def _result(future: Future[Path]) -> Path:
    """Its result, unless a stop is asked for while it is being made."""
    while True:
        try:
            return future.result(timeout=POLL_S)
        except TimeoutError:
            stopping.check("tokenize_corpus")


_worker: ShardTokenizer
_encoder: Encoder | None = None


def _set_up(documents: Path, folder: Path) -> None:
    global _worker  # noqa: PLW0603 - one per worker process, set once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = ShardTokenizer(documents, folder)


def _awake() -> None:
    """Does nothing: a task that finds no idle process starts one."""


def _make(shard: int, encoder: Encoder | Path) -> Path:
    global _encoder  # noqa: PLW0603 - loaded once per worker process
    if _encoder is None:
        _encoder = load_tokenizer(encoder) if isinstance(encoder, Path) else encoder
    return _worker.make(shard, _encoder)


def _end_with_parent() -> None:
    """A pool's workers outlive a parent that is killed; ours do not."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
