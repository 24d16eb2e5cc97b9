"""A soak: the sample recipe, killed and signalled at random until the time is over, again and again to its end."""

import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from faults.line.bench import leftovers, same_result
from faults.warm import Warm

FAULTS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
LONGEST_PEACE_S = 60.0
ROUND_S = 3600.0


def soak(folder: Path, warm: Warm, minutes: float, source: str, seed: int) -> Counter[str]:
    """Disturb runs of the sample recipe for `minutes`; each one that ends is compared with an undisturbed one."""
    rng, count = random.Random(seed), Counter[str]()
    arguments = ["run", "--recipe", "sample", "--source", source]
    unbroken = folder / "sample-unbroken"
    unbroken.mkdir(exist_ok=True)
    if warm.start(arguments, cwd=unbroken, log_path=unbroken / "log.txt").wait(ROUND_S) != 0:
        raise RuntimeError(f"the undisturbed run failed, see {unbroken / 'log.txt'}")
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline:
        home = folder / f"sample-disturbed-{count['runs'] + 1}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        code = -1
        while code != 0:
            child = warm.start(arguments, cwd=home, log_path=home / "log.txt")
            fault = rng.choice(FAULTS)
            try:
                if time.monotonic() >= deadline:
                    code = child.wait(ROUND_S)  # the last run may end in peace
                else:
                    code = child.wait(rng.uniform(0.1, LONGEST_PEACE_S))
            except TimeoutError:
                child.kill(fault)
                code = child.wait(ROUND_S)
                count[fault.name] += 1
                count["expected_codes"] += code in (-fault, 75)
                continue
            if code != 0:
                count["unexpected_ends"] += 1
                print((home / "log.txt").read_text()[-2000:], flush=True)
                break
        count["runs"] += 1
        count["bit_equal"] += code == 0 and same_result(home, unbroken, "sample")
        count["leftovers"] += bool(leftovers(home))
        print(f"soak: {dict(count)}", flush=True)
    return count
