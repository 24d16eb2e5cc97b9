"""The machine's own rate of matrix multiplication, in the precision that training runs in here."""

import time

import torch

from pipeline.benchmark.turns import Turns, Work
from pipeline.settings import RunSettings
from pipeline.training.device import resolve_device

REPEAT_S = 0.4


def measure(turns: Turns, work: Work) -> None:
    """Multiply two square matrices again and again; the units are FLOP."""
    device, n = resolve_device(RunSettings()), work.sizes.matmul_size
    a, b = (torch.randn(n, n, device=device.device).to(device.dtype) for _ in range(2))
    out = torch.empty_like(a)
    turns.tell(precision=device.precision)

    def repeat() -> tuple[int, float]:
        times, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < REPEAT_S or not times:
            torch.mm(a, b, out=out)
            if device.device.type == "cuda":
                torch.cuda.synchronize(device.device)
            times += 1
        return times, elapsed

    repeat()
    while True:
        turns.wait()
        times, seconds = repeat()
        turns.stop(times * 2 * n**3, [seconds])
