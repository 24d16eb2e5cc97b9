"""All faults against our line, one after the other, and what they add up to."""

import json
import tempfile
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

from faults.line import damage, disk, kills, locks
from faults.line.bench import ENVIRONMENT, PRELOAD, Bench
from faults.line.soak import soak
from faults.warm import Warm

ROOT = Path(__file__).parents[3]
RESULTS = Path(__file__).parents[1] / "results.json"


def measure(options: Namespace) -> dict[str, Any]:
    """Counts by the names that the README explains; `figures` has those of every trial."""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory(prefix="faults-") as name, Warm("faults.line.job:main", PRELOAD, environment) as w:
        folder = Path(name)
        if options.soak:
            return {"soak_minutes": options.soak, **soak(folder, w, options.soak, options.source, options.seed)}
        bench = Bench(folder, w, options.seed)
        inside = round(options.kills * 0.3)
        figures = {
            "killed at random": _timed("kills at random moments", kills.kill_at_random_times, bench,
                                       options.kills - inside),
            "killed inside a save": _timed("kills inside saves", kills.kill_inside_saves, bench, inside),
            "signalled": _timed("signals", kills.signal_at_random_times, bench, options.signals),
            "checkpoints spoilt": _timed("spoilt checkpoints", damage.spoil_checkpoints, bench, options.flips,
                                         options.cuts),
            "runs on a spoilt checkpoint": _timed("runs on a spoilt checkpoint", damage.run_on_damage, bench,
                                                  options.runs),
            "artifacts spoilt": _timed("spoilt artifacts", damage.spoil_artifacts, bench, options.flips, options.cuts),
            "files that cannot grow": _timed("files that cannot grow", disk.limit_file_size, bench, options.runs),
            "small disks": _timed("small disks", disk.fill_small_disks, bench, options.runs),
            "read-only disk": _timed("read-only disk", disk.read_only_disk, bench),
            "two jobs": _timed("two jobs on one run", locks.two_at_once, bench, max(1, options.runs // 3)),
        }
    return {**_sum(figures), "figures": {name: dict(count) for name, count in figures.items()}}


def _timed(title: str, trial: Any, *arguments: Any) -> Counter[str]:
    started = time.monotonic()
    count: Counter[str] = trial(*arguments)
    said = ", ".join(f"{name} {number}" for name, number in count.items())
    print(f"{title}: {said or 'not possible here'} ({time.monotonic() - started:.0f} s)", flush=True)
    return count


def _sum(figures: dict[str, Counter[str]]) -> dict[str, int]:
    total = sum(figures.values(), Counter[str]())
    in_save = figures["killed inside a save"]
    killed = figures["killed at random"] + in_save
    checkpoints = figures["checkpoints spoilt"] + figures["runs on a spoilt checkpoint"]
    return {
        "kills": killed["kills"], "recovered": killed["recovered"], "bit_equal": killed["bit_equal"],
        "leftovers": killed["leftovers"], "kills_in_save": in_save["kills"],
        "recovered_in_save": in_save["recovered"], "bit_equal_in_save": in_save["bit_equal"],
        "signals": total["signals"], "durable": total["durable"], "steps_lost": total["steps_lost"],
        "corruptions": total["corruptions"], "silent_loads": total["silent_loads"],
        "spoilt_checkpoints": checkpoints["corruptions"], "fell_back": checkpoints["fell_back"],
        "full_disks": total["full_disks"], "full_disks_named": total["named"],
        "full_disks_recovered": sum(
            figures[name]["recovered"] for name in ("files that cannot grow", "small disks", "read-only disk")
        ),
        "locks": total["locks"], "locks_refused": total["refused"], "locks_taken_over": total["taken_over"],
    }


def passed(result: dict[str, Any]) -> bool:
    """True if nothing was lost, nothing damaged was loaded and nothing was left behind."""
    if "soak_minutes" in result:
        return result["runs"] == result["bit_equal"] > 0 and not result.get("unexpected_ends")
    return (
        result["kills"] == result["recovered"] == result["bit_equal"]
        and result["signals"] == result["durable"]
        and result["spoilt_checkpoints"] == result["fell_back"]
        and result["full_disks"] == result["full_disks_named"] == result["full_disks_recovered"]
        and result["locks"] == result["locks_refused"] == result["locks_taken_over"]
        and not (result["silent_loads"] or result["steps_lost"] or result["leftovers"])
    )


def record(name: str, result: Any) -> None:
    """Keep the result for the README under `name`: line, soak or rivals."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**results, name: result}, indent=2) + "\n", encoding="utf-8")
