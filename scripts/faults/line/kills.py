"""`kill -9` at random moments of every stage and inside saves; signals that ask for a stop."""

import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from faults.line.bench import PRECISIONS, STAGES, TIMEOUT_S, Bench, ended_by, leftovers

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STOPPED = re.compile(r"^(finetune_lm|train_classifier) after step ([\d,]+) was stopped by", re.MULTILINE)
WENT_ON = re.compile(r"^(finetune_lm|train_classifier): going on after step ([\d,]+) ", re.MULTILINE)


def kill_at_random_times(bench: Bench, kills: int) -> Counter[str]:
    """Kill runs in every stage in turn, at a random moment of it, then give the same command again."""
    count: Counter[str] = Counter()
    stages = list(STAGES)
    number = 0
    while count["kills"] < kills:
        precision, stage = PRECISIONS[number % 3], stages[number % len(stages)]
        number += 1
        home = bench.new_home("killed")
        child = bench.start(home, precision)
        time.sleep(_moment_of(bench, precision, stage))
        child.kill_group()
        if not ended_by(child.wait(TIMEOUT_S)):
            continue  # it was faster than its model
        _recover(bench, home, precision, count)
    return count


def kill_inside_saves(bench: Bench, kills: int) -> Counter[str]:
    """Kill runs inside a random save: at a system call of it, or wherever it is after some microseconds."""
    count: Counter[str] = Counter()
    while count["kills"] < kills:
        precision = PRECISIONS[count["kills"] % 3]
        victim = bench.rng.randint(1, bench.unbroken[precision].saves)
        call = f"{bench.rng.choice(('before', 'after'))}-{bench.rng.randint(1, 8)}"
        where = call if bench.rng.random() < 0.5 else str(bench.rng.randint(1, 6000))
        home = bench.new_home("killed")
        code = bench.start(home, precision, FAULT_SAVE=f"{victim}:{where}").wait(TIMEOUT_S)
        if not ended_by(code):
            raise RuntimeError(f"save {victim} ({where}) ended with {code}:\n{(home / 'log.txt').read_text()}")
        _recover(bench, home, precision, count)
    return count


def _moment_of(bench: Bench, precision: str, stage: str) -> float:
    """Seconds from the start of a run to a random moment of `stage`, as the unbroken run went."""
    unbroken = bench.unbroken[precision]
    starts = [*(unbroken.started[name] for name in STAGES), unbroken.seconds]
    position = list(STAGES).index(stage)
    return bench.rng.uniform(starts[position], starts[position + 1])


def _recover(bench: Bench, home: Path, precision: str, count: Counter[str]) -> None:
    count["kills"] += 1
    recovered = bench.finish(home, precision) == 1
    count["recovered"] += recovered
    equal = recovered and bench.equals_unbroken(home, precision)
    count["bit_equal"] += equal
    left = leftovers(home)
    count["leftovers"] += bool(left)
    if not equal or left:
        _keep(home, f"kill-{count['kills']}")


def signal_at_random_times(bench: Bench, signals: int) -> Counter[str]:
    """Ask runs to stop at random moments. `durable`: exit code 75, no step lost, and the same command ends equal."""
    count: Counter[str] = Counter()
    stages = list(STAGES)
    number = 0
    while count["signals"] < signals:
        precision, stage, sent = PRECISIONS[number % 3], stages[number % len(stages)], SIGNALS[number % len(SIGNALS)]
        number += 1
        home = bench.new_home("signalled")
        child = bench.start(home, precision)
        time.sleep(_moment_of(bench, precision, stage))
        child.kill(sent)
        code = child.wait(TIMEOUT_S)
        if code == 0 or (code == -sent and "prepare_corpus: starting" not in child.output()):
            continue  # it was done already, or had not begun to listen
        count["signals"] += 1
        stopped = STOPPED.findall(child.output())
        recovered = bench.finish(home, precision) == 1
        went_on = WENT_ON.findall((home / "log.txt").read_text(encoding="utf-8"))
        count["steps_lost"] += int(bool(stopped) and stopped[-1] not in went_on)
        durable = code == 75 and recovered and bench.equals_unbroken(home, precision)
        count["durable"] += durable and (not stopped or stopped[-1] in went_on)
        if not durable:
            _keep(home, f"signal-{count['signals']}-code-{code}")
    return count


def _keep(home: Path, name: str) -> None:
    """Keep what went wrong for a look."""
    kept = home.with_name(f"failed-{name}")
    shutil.rmtree(kept, ignore_errors=True)
    home.rename(kept)
    print(f"kept {kept}", flush=True)
