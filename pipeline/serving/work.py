"""Where the models work: one thread that predicts in batches, one for what takes longer.

Requests that arrive while a batch is computed wait and are computed together: nobody waits for company, and the more
there are, the larger the batches. Explanations and generated text have a thread of their own, with one core, so that
predictions do not wait for them.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.inference.bundle import ClassifierBundle
from pipeline.serving.metrics import Metrics

BATCH_CHARACTERS = 200_000
"""Texts computed together: over a hundred reviews, or one very long document alone."""
Answer = TypeVar("Answer")


class Busy(Exception):
    """As many requests wait as may."""


class _Abandoned(Exception):
    """Nobody waits for this work any more."""


@dataclass(eq=False)
class _Waiting:
    """The texts of one request."""

    bundle: ClassifierBundle
    texts: Sequence[str]
    answer: Future[NDArray[np.float64]] = field(default_factory=Future)
    abandoned: bool = False

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts))


class MicroBatcher:
    """Predicts the texts of many requests together. C classes."""

    def __init__(self, metrics: Metrics, max_waiting: int, threads: int) -> None:
        self._metrics, self._max_waiting = metrics, max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, args=(threads,), name="predictions", daemon=True)
        self._thread.start()

    async def probabilities(self, bundle: ClassifierBundle, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities [N, C] of texts. Raises Busy; may be cancelled at any time."""
        request = _Waiting(bundle, texts)
        with self._changed:
            if len(self._waiting) >= self._max_waiting:
                raise Busy
            self._waiting.append(request)
            self._metrics.waiting.set(len(self._waiting))
            self._changed.notify()
        try:
            return await asyncio.wrap_future(request.answer)
        except asyncio.CancelledError:
            request.abandoned = True
            with self._changed:
                if request in self._waiting:  # it takes nobody's place any more
                    self._waiting.remove(request)
                    self._metrics.waiting.set(len(self._waiting))
            raise

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self, threads: int) -> None:
        torch.set_num_threads(threads)
        while batch := self._next():
            texts = [text for request in batch for text in request.texts]
            started = time.perf_counter()
            try:
                bundle = batch[0].bundle
                found = bundle.probabilities(bundle.text.encode(texts), between_steps=partial(_check, batch))
            except Exception as error:  # this batch fails, the thread goes on
                for request in batch:
                    request.answer.set_exception(error)
                continue
            self._metrics.batch_seconds.observe(time.perf_counter() - started)
            self._metrics.batch_texts.observe(len(texts))
            ends = np.cumsum([len(request.texts) for request in batch])
            for request, own in zip(batch, np.split(found, ends[:-1]), strict=True):
                request.answer.set_result(own)

    def _next(self) -> list[_Waiting]:
        """The oldest request and those for the same classifier that fit beside it; [] at the end."""
        with self._changed:
            while True:
                batch: list[_Waiting] = []
                size = 0
                for request in list(self._waiting):
                    fits = not batch or (
                        request.bundle is batch[0].bundle and size + request.characters <= BATCH_CHARACTERS
                    )
                    if not fits:
                        continue
                    self._waiting.remove(request)
                    if request.answer.set_running_or_notify_cancel():
                        batch.append(request)
                        size += request.characters
                self._metrics.waiting.set(len(self._waiting))
                if batch or self._closed:
                    return batch
                self._changed.wait()


def _check(batch: Sequence[_Waiting]) -> None:
    if all(request.abandoned for request in batch):
        raise _Abandoned


class SlowLane:
    """Does one thing at a time, on one core."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting, self._n = max_waiting, 0
        self._pool = ThreadPoolExecutor(1, "slow", torch.set_num_threads, (1,))
        self._pool.submit(torch.get_num_threads).result()  # the thread exists, whatever others set after it

    async def run(self, work: Callable[[Callable[[], None]], Answer]) -> Answer:
        """What `work` returns; it is given a function to call now and then, which ends it when nobody waits any more.

        Raises Busy; may be cancelled at any time.
        """
        if self._n >= self._max_waiting:
            raise Busy
        abandoned = threading.Event()

        def check() -> None:
            if abandoned.is_set():
                raise _Abandoned

        self._n += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, check)
        except asyncio.CancelledError:
            abandoned.set()
            raise
        finally:
            self._n -= 1

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._pool.shutdown()
