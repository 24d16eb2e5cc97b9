"""Where an artifact comes from: the time, the process, the checkout and the packages that make it."""

import contextlib
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = ("fastai", "numpy", "pyarrow", "safetensors", "scikit-learn", "sentencepiece", "spacy", "torch")


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_process() -> dict[str, Any]:
    """Host, process and batch job that we are, for lock files and manifests."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "job_id": os.environ.get("SLURM_JOB_ID")}


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages whose behaviour shapes an artifact; reads metadata, imports nothing."""
    from pipeline import __version__

    versions = {"pipeline": __version__, "python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout this program runs from and whether it was edited; (None, None) outside a checkout."""
    folder = Path(__file__).parent.parent

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder.resolve():
            return None, None
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None
