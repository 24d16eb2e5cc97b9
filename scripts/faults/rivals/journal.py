"""What a job leaves behind for the harness: the steps it finished, and hashes of its final weights and optimizer."""

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import torch

STOP_VARIABLE = "FAULT_KILL_AFTER_STEP"  # a step, between two saves, after which the job kills itself


class Journal:
    """Files in the run folder that no trainer reads: `steps.log` and `result.json`.

    `steps.log` has a line `start` per process and the number of every finished step, counted from 1 over the whole
    run; a line is handed to the kernel before the step counts as done, so a kill cannot lose it. `result.json` is
    written last by a process that reached the end of training.
    """

    def __init__(self, run: Path) -> None:
        self._result = run / "result.json"
        self._result.unlink(missing_ok=True)
        self._steps = os.open(run / "steps.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self._steps, b"start\n")
        self._last_step = int(os.environ.get(STOP_VARIABLE, "0"))

    def step(self, number: int) -> None:
        """Step `number` is done."""
        os.write(self._steps, f"{number}\n".encode())
        if number == self._last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def finish(self, weights: Any, optimizer: Any) -> None:
        """Write the hashes of the final state."""
        hashes = {"weights": hash_of(weights), "optimizer": hash_of(optimizer)}
        self._result.write_text(json.dumps(hashes) + "\n", encoding="utf-8")


def hash_of(state: Any) -> str:
    """sha256 of a nested state dict: keys, plain values, and type, shape and bytes of every tensor."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                digest.update(f"{key}:".encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            digest.update(repr(value).encode())

    add(state)
    return digest.hexdigest()


def steps_of(run: Path) -> list[list[int]]:
    """The steps that each process of a run finished, one list per process; [] if none came so far."""
    path = run / "steps.log"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    processes: list[list[int]] = []
    for line in lines:
        if line == "start":
            processes.append([])
        else:
            processes[-1].append(int(line))
    return processes
