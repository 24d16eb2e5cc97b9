"""One fault against one rival's training job, and what became of it."""

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.rivals.in_save import KILL_VARIABLE, SIZES_VARIABLE
from faults.rivals.journal import STOP_VARIABLE, steps_of
from faults.warm import Child, Warm

MAX_RESTARTS = 5
HUNG_S = 300
COMPLAINT = re.compile(r"corrupt|damage|checksum|invalid|mismatch|could not|cannot|fail|error|truncat", re.IGNORECASE)


@dataclass(frozen=True)
class Rival:
    """A trainer: its job, and the weights file of every checkpoint by the step it was written after."""

    system: str
    package: str
    target: str
    settings: str
    weights: Callable[[Path, int], dict[int, Path]]  # (run folder, steps per checkpoint)


@dataclass(frozen=True)
class Unbroken:
    """A run without a fault: hash of the final weights, seconds, and the bytes of every save in order."""

    weights: str
    optimizer: str
    duration_s: float
    save_sizes: list[int]


@dataclass(frozen=True)
class Outcome:
    """What the same command made of a run after a fault.

    `first_exit` is the exit code of the process that met the fault; `complaint` the last line of the last process,
    or of an undisturbed exit the first new line that sounds like a complaint, "" for none.
    """

    recovered: bool
    weights: str
    steps_lost: int
    resumed_after: int
    first_exit: int
    complaint: str


@dataclass(frozen=True)
class Bench:
    """A rival with its warm process, a folder for its runs, and the length of a run."""

    rival: Rival
    warm: Warm
    folder: Path
    steps: int
    save_every: int

    def start(self, run: Path, env: dict[str, str] | None = None, stretch: int = 1) -> Child:
        """Start the job, or start it again: the command is the same."""
        run.mkdir(exist_ok=True)
        argv = ["--run", str(run), "--steps", str(self.steps * stretch), "--save-every", str(self.save_every)]
        return self.warm.start(argv, cwd=run, log_path=run / f"log-{len(list(run.glob('log-*')))}.txt", env=env)

    def unbroken(self, stretch: int = 1) -> Unbroken:
        """Run the job to its end."""
        run = self.folder / "unbroken"
        begin = time.monotonic()
        child = self.start(run, {SIZES_VARIABLE: str(run / "sizes")}, stretch)
        exit_code = child.wait(HUNG_S)
        duration_s = time.monotonic() - begin
        if exit_code != 0:
            raise RuntimeError(f"{self.rival.system} fails without a fault:\n{child.output()}")
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        sizes = [int(line) for line in (run / "sizes").read_text(encoding="utf-8").split()]
        shutil.rmtree(run)
        return Unbroken(result["weights"], result["optimizer"], duration_s, sizes)

    def signalled_at(self, sig: signal.Signals, delay_s: float, stretch: int = 1) -> Outcome | None:
        """A signal to the job after a delay; None if the run was over before it.

        SIGKILL goes to the whole process group. After other signals the job may take its time to end.
        """
        run = self.folder / sig.name
        child = self.start(run, stretch=stretch)
        try:
            child.wait(delay_s)
        except TimeoutError:
            (child.kill_group if sig == signal.SIGKILL else child.kill)(sig)
            return self.outcome(run, child.wait(HUNG_S), stretch)
        shutil.rmtree(run)
        return None

    def killed_in_save(self, save: int, byte: int) -> Outcome:
        """Death at a byte of the save of that number, counted from 1."""
        run = self.folder / "killed"
        exit_code = self.start(run, {KILL_VARIABLE: f"{save}:{byte}"}).wait(HUNG_S)
        if exit_code not in (-signal.SIGXFSZ, -signal.SIGKILL):
            raise RuntimeError(f"save {save} was to die at byte {byte}, but the job ended with {exit_code}")
        return self.outcome(run, exit_code)

    def stopped(self) -> tuple[Path, int]:
        """A run killed half-way between two late checkpoints. Returns it, and the step of the newest checkpoint."""
        run = self.folder / "stopped"
        newest = self.steps - 2 * self.save_every
        child = self.start(run, {STOP_VARIABLE: str(newest + self.save_every // 2)})
        exit_code = child.wait(HUNG_S)
        checkpoints = self.rival.weights(run, self.save_every)
        if exit_code != -signal.SIGKILL or len(checkpoints) < 2 or max(checkpoints) != newest:
            raise RuntimeError(f"no stop after step {newest} with two checkpoints: {checkpoints}\n{child.output()}")
        return run, newest

    def resumed(self, stopped: Path, damage: Callable[[Path], None] | None = None) -> Outcome:
        """The same command in a copy of a stopped run, after damage to the newest checkpoint's weights file."""
        run = self.folder / "resumed"
        shutil.copytree(stopped, run)
        checkpoints = self.rival.weights(run, self.save_every)
        if damage:
            damage(checkpoints[max(checkpoints)])
        return self.outcome(run, -signal.SIGKILL)

    def outcome(self, run: Path, first_exit: int, stretch: int = 1) -> Outcome:
        """Start the same command until it ends with 0 and a final model, then remove the run."""
        before = steps_of(run)
        finished = first_exit == 0 and (run / "result.json").exists()
        complaint, restarts = "", 0
        while not finished and restarts < MAX_RESTARTS:
            restarts += 1
            child = self.start(run, stretch=stretch)
            try:
                exit_code = child.wait(HUNG_S)
            except TimeoutError:
                child.kill_group()
                exit_code = child.wait(HUNG_S)
            finished = exit_code == 0 and (run / "result.json").exists()
            lines = [line for line in child.output().splitlines() if line.strip()]
            if finished:
                complaint = next((line for line in lines if COMPLAINT.search(line)), "")
            else:
                complaint = (lines or ["no output"])[-1]
        result = json.loads((run / "result.json").read_text(encoding="utf-8")) if finished else {"weights": ""}
        processes = steps_of(run)
        after = [process[0] for process in processes[len(before):] if process]
        shutil.rmtree(run)
        return Outcome(
            recovered=finished, weights=result["weights"], steps_lost=steps_lost(processes),
            resumed_after=after[0] - 1 if after else self.steps * stretch, first_exit=first_exit,
            complaint=complaint.replace(str(run), "RUN"),
        )


def steps_lost(processes: list[list[int]]) -> int:
    """How many finished steps later processes did again."""
    lost, last = 0, 0
    for steps in filter(None, processes):
        lost += max(0, last - (steps[0] - 1))
        last = steps[-1]
    return lost


def place_in_saves(sizes: list[int], rng: random.Random) -> tuple[int, int]:
    """A byte drawn evenly from all that a run saves: number of the save, from 1, and byte within it."""
    byte = rng.randrange(sum(sizes))
    for number, size in enumerate(sizes, start=1):
        if byte < size:
            return number, byte
        byte -= size
    raise AssertionError("a byte below the sum lies in one of the saves")


def flip_a_byte(path: Path, rng: random.Random) -> None:
    """Change one random byte of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    """Cut a file at a random length, zero included."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])
