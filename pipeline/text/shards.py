"""Tokenizing a corpus piece by piece, in worker processes or here; workers import neither torch nor fastai.

A shard is one row group of the corpus, whatever the number of workers, and becomes one file; files are put together
in corpus order, so the result does not depend on who made which.
"""

import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline.errors import OutOfMemoryError
from pipeline.text.encoding import EncodedBatch
from pipeline.text.tokenizer import Tokenizer, load_tokenizer

BATCH_CHARS = 8_000_000
"""Characters tokenized in one call: some 6,000 reviews, or one long document."""
READ_DOCUMENTS = 250


class ShardTokenizer:
    """Tokenizes row groups of one corpus file; each worker process has one."""

    def __init__(self, documents: Path, tokenizer: Tokenizer, folder: Path) -> None:
        self._documents, self._tokenizer, self._folder = documents, tokenizer, folder

    def make(self, shard: int) -> Path:
        """The file of row group `shard`: types, ids and lengths. One that is there already is taken as it is."""
        path = self._folder / f"{shard:06d}.shard"
        if path.exists():
            return path
        merged = merge(self._tokenizer.encode(texts) for texts in self._batches(shard))
        partial = path.with_suffix(".partial")
        types = json.dumps(merged.types, ensure_ascii=False).encode("utf-8", "surrogatepass")
        with partial.open("wb") as stream:
            np.save(stream, merged.lengths)
            np.save(stream, merged.ids)
            np.save(stream, np.frombuffer(types, dtype=np.uint8))
        partial.rename(path)
        return path

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


def read_shard(path: Path) -> EncodedBatch:
    """What `ShardTokenizer.make` wrote."""
    with path.open("rb") as stream:
        lengths = np.load(stream, allow_pickle=False)
        ids = np.load(stream, allow_pickle=False)
        types = np.load(stream, allow_pickle=False)
    return EncodedBatch(json.loads(types.tobytes()), ids, lengths)


def tokenize_shards(
    documents: Path, tokenizer: Tokenizer, tokenizer_folder: Path, folder: Path, workers: int
) -> Iterator[EncodedBatch]:
    """Every row group of `documents` in order. `folder` keeps the finished ones; `workers` 0 is one per core."""
    with pq.ParquetFile(documents) as file:
        n_shards = file.metadata.num_row_groups
    workers = min(workers or os.cpu_count() or 1, max(n_shards, 1))
    if workers == 1:
        here = ShardTokenizer(documents, tokenizer, folder)
        yield from (read_shard(here.make(shard)) for shard in range(n_shards))
        return
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _set_up, (documents, tokenizer_folder, folder)
    ) as pool:
        waiting: deque[Future[Path]] = deque()
        try:
            for shard in range(n_shards):
                waiting.append(pool.submit(_make, shard))
                if len(waiting) > 2 * workers:
                    yield read_shard(waiting.popleft().result())
            while waiting:
                yield read_shard(waiting.popleft().result())
        except BrokenProcessPool as error:
            raise OutOfMemoryError(
                "A worker process of tokenize_corpus was killed, most likely for lack of memory.",
                f"Give fewer than {workers} workers: --set tokenize_corpus.workers=1.",
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker: ShardTokenizer


def _set_up(documents: Path, tokenizer_folder: Path, folder: Path) -> None:
    global _worker  # noqa: PLW0603 - one per worker process, set once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = ShardTokenizer(documents, load_tokenizer(tokenizer_folder), folder)


def _make(shard: int) -> Path:
    return _worker.make(shard)


def _end_with_parent() -> None:
    """A pool's workers outlive a parent that is killed; ours do not."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
