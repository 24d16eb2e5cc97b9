"""The collectives of the processes that train together; all of them call the same in the same order.

In one process each does nothing. Those inside a step are bounded in time; what waits for rank 0 to write is not, but
ends when the connection does.
"""

import json
import time
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.ranks import ALONE, Ranks

_PATIENCE = timedelta(days=7)
_SPARE = timedelta(minutes=5)
"""Longer than our own limit, so that torch's watchdog does not end the process before we say why."""
_POLL_S = 1e-4


class Group:
    """`ranks` that train together; a collective that takes longer than `limit_s` seconds fails.

    Every method raises what `Ranks.lost` makes of a rank that is gone.
    """

    def __init__(self, ranks: Ranks = ALONE, limit_s: float = 60.0) -> None:
        self.ranks, self.rank, self.size, self._limit_s = ranks, ranks.rank, ranks.size, limit_s

    def meet(self) -> None:
        """Connect to the other ranks once all of them are ready to train; nothing below works before."""
        if self.size == 1:
            return
        self.ranks.assemble()
        if not dist.is_initialized():
            gpus = torch.cuda.is_available() and dist.is_nccl_available()
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if gpus else "gloo", store=self.ranks.store("group"), rank=self.rank,
                world_size=self.size, timeout=timedelta(seconds=self._limit_s) + (_SPARE if gpus else timedelta()),
            )
        self._patient: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def describe(self) -> str:
        """For the first line of a log."""
        return f", {self.size} processes" if self.size > 1 else ""

    def part(self, rows: int) -> slice:
        """The rows of this rank, one after the other, when `rows` are split as evenly as they can be.

        Fewer rows than ranks are not split: every rank then has all of them.
        """
        if not self.splits(rows):
            return slice(0, rows)
        mine = np.array_split(np.arange(rows), self.size)[self.rank]
        return slice(int(mine[0]), int(mine[-1]) + 1)

    def splits(self, rows: int) -> bool:
        """True if that many rows are split over the ranks."""
        return rows >= self.size

    def add(self, tensor: Tensor) -> None:
        """Put the sum over all ranks in the place of `tensor`; every rank gets the same bits."""
        if self.size > 1:
            self._run(lambda: dist.all_reduce(tensor, async_op=True), tensor)

    def gather(self, tensor: Tensor) -> Tensor:
        """`tensor` of every rank, all of one shape, as [ranks, ...]."""
        if self.size == 1:
            return tensor[None]
        whole = tensor.new_empty((self.size, *tensor.shape))
        mine = tensor.contiguous()
        self._run(lambda: dist.all_gather(list(whole.unbind()), mine, async_op=True), tensor)
        return whole

    def gather_rows(self, tensor: Tensor, rows: int, dim: int = 0) -> Tensor:
        """The parts of `rows` rows that `part` gave each rank, put together again along `dim`."""
        if self.size == 1 or not self.splits(rows):
            return tensor
        most = -(-rows // self.size)
        dtype = torch.promote_types(tensor.dtype, torch.float32)  # which every backend sends
        padded = tensor.new_zeros((most, *tensor.movedim(dim, 0).shape[1:]), dtype=dtype)
        padded[: tensor.shape[dim]] = tensor.movedim(dim, 0)
        counts = [len(part) for part in np.array_split(np.arange(rows), self.size)]
        parts = [part[:n] for part, n in zip(self.gather(padded), counts, strict=True)]
        return torch.cat(parts).to(tensor.dtype).movedim(0, dim).contiguous()

    def say(self, value: Any = None) -> Any:
        """Rank 0's `value`, plain JSON, on every rank; the others wait for it as long as it takes."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.rank == 0 else b""
        length = torch.tensor([len(text)])
        self._run(lambda: dist.broadcast(length, 0, group=self._patient))
        data = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(
            int(length), dtype=torch.uint8
        )
        self._run(lambda: dist.broadcast(data, 0, group=self._patient))
        return json.loads(bytes(data.tolist()))

    @staticmethod
    def leave() -> None:
        """Close the connections, so that the others do not wait for this rank."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def wait_for_first(self) -> None:
        """Wait until rank 0 has come here: after what it alone does, such as writing."""
        self.say()

    def wait_for_all(self) -> None:
        """Wait until all ranks have come here: after what each reads that rank 0 may then remove."""
        if self.size > 1:
            self._run(lambda: dist.all_reduce(torch.zeros(1), group=self._patient))

    def _run(self, collective: Any, tensor: Tensor | None = None) -> None:
        started = time.monotonic()
        try:
            work = collective()
            if tensor is not None and tensor.is_cuda:
                while not work.is_completed():
                    if time.monotonic() - started > self._limit_s:
                        raise RuntimeError("a collective took too long")
                    time.sleep(_POLL_S)
            if work is not None:
                work.wait()
        except RuntimeError as error:
            late = time.monotonic() - started >= self._limit_s
            raise self.ranks.lost(self._limit_s if late else None) from error


ONE = Group()
"""A process that trains alone."""
