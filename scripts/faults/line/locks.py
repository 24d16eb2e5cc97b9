"""Two jobs on one run folder, and the lock of a job that was killed."""

import signal
from collections import Counter

from faults.line.bench import TIMEOUT_S, Bench

LOCKED = 8


def two_at_once(bench: Bench, trials: int) -> Counter[str]:
    """A second job is refused by the name of the first; once the first is killed, the next takes its place."""
    count: Counter[str] = Counter()
    while count["locks"] < trials:
        home = bench.new_home("locked")
        first = bench.start(home, "fp32")
        first.wait_for("finetune_lm: starting", TIMEOUT_S)
        first.kill(signal.SIGSTOP)
        second = bench.start(home, "fp32")
        refused = second.wait(TIMEOUT_S) == LOCKED and f"is being written by process {first.pid} on" in second.output()
        first.kill()
        first.wait(TIMEOUT_S)
        count["locks"] += 1
        count["refused"] += refused
        count["taken_over"] += bench.finish(home, "fp32") == 1 and bench.equals_unbroken(home, "fp32")
    return count
