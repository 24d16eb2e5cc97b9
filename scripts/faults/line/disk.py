"""Disks that are full: files that cannot grow, and a small file system where one can be mounted."""

import os
import subprocess
from collections import Counter
from pathlib import Path

from faults.line.bench import STAGES, TIMEOUT_S, Bench, leftovers

STORAGE = 7


def limit_file_size(bench: Bench, trials: int) -> Counter[str]:
    """Let no file grow beyond a size, first one byte too little for the tokens.

    Exit 7 without a traceback, and all is well once the limit is gone.
    """
    count: Counter[str] = Counter()
    largest = max(path.stat().st_size for path in bench.unbroken["fp32"].home.rglob("*") if path.is_file())
    short = (bench.unbroken["fp32"].home / STAGES["tokenize_corpus"] / "type_ids.bin").stat().st_size - 1
    for number in range(trials):
        home = bench.new_home("full")
        limit = short if number == 0 else bench.rng.randrange(largest)
        code = bench.start(home, "fp32", FAULT_FILE_BYTES=str(limit)).wait(TIMEOUT_S)
        _count(bench, home, code, count)
    return count


def fill_small_disks(bench: Bench, trials: int) -> Counter[str]:
    """The same on file systems of a random size; needs the right to mount one, else nothing is counted."""
    count: Counter[str] = Counter()
    used = sum(path.stat().st_size for path in bench.unbroken["fp32"].home.rglob("*") if path.is_file())
    mount = bench.folder / "small-disk"
    mount.mkdir(exist_ok=True)
    if os.geteuid() != 0 or not _mount(mount, 1):
        return count
    _unmount(mount)
    for _ in range(trials):
        assert _mount(mount, bench.rng.randrange(used // 8, used) // 1024)
        try:
            home = mount / "home"
            code = bench.start(home, "fp32", FAULT_SPARE_BYTES="0").wait(TIMEOUT_S)
            subprocess.run(["mount", "-o", "remount,size=1g", str(mount)], check=True)
            _count(bench, home, code, count)
        finally:
            _unmount(mount)
    return count


def read_only_disk(bench: Bench) -> Counter[str]:
    """A folder that cannot be written is an exit 7 too; nothing is counted where none can be mounted."""
    count: Counter[str] = Counter()
    mount = bench.folder / "read-only-disk"
    mount.mkdir(exist_ok=True)
    if os.geteuid() != 0 or not _mount(mount, 64):
        return count
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        child = bench.warm.start(bench.arguments("fp32"), cwd=mount, log_path=bench.folder / "read-only.txt")
        count["full_disks"] += 1
        count["named"] += child.wait(TIMEOUT_S) == STORAGE and "Read-only file system" in child.output()
        count["recovered"] += not list(mount.iterdir())
    finally:
        _unmount(mount)
    return count


def _count(bench: Bench, home: Path, code: int, count: Counter[str]) -> None:
    log = (home / "log.txt").read_text(encoding="utf-8")
    if code == 0:
        return  # it fitted
    count["full_disks"] += 1
    count["named"] += code == STORAGE and "Traceback" not in log
    recovered = bench.finish(home, "fp32") == 1 and bench.equals_unbroken(home, "fp32")
    count["recovered"] += recovered and not leftovers(home)


def _mount(folder: Path, size_kb: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)
