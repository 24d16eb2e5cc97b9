"""Downloads of published files: checked, resumed where they broke off, one clear sentence where there is no network."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from pipeline import stopping
from pipeline.errors import InputError, UsageError
from pipeline.lock import in_turn
from pipeline.progress import Reporter
from pipeline.published import PublishedFile

ATTEMPTS = 3
"""Tries in a row that bring no new byte before a home is given up."""
PAUSE_S = 1.0
"""Pause after a failed try, times the number of failures in a row."""
TIMEOUT_S = 30.0


class _DownloadError(Exception):
    """Why one home could not give its file."""


def fetch(
    homes: Sequence[PublishedFile], folder: Path, reporter: Reporter, *, offline: bool = False
) -> tuple[Path, str]:
    """Path and address of the first of `homes` that lies in `folder` or, unless `offline`, can be downloaded into it.

    An interrupted download goes on from its .part file, also in a later run. Raises InputError with what to do where
    there is no network, or if what came is not what was published; UsageError if the shell's proxy or certificate
    settings cannot be used; Stopped if that was asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with turn_in(folder):
        for home in homes:
            target = folder / home.name
            if target.exists() and not home.mismatch(target):
                return target, home.url
        if offline:
            raise missing_offline(folder / homes[0].name, homes[0].url)
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


def turn_in(folder: Path) -> AbstractContextManager[None]:
    """The right to download into `folder`; Stopped if that is asked for while another job has it."""
    return in_turn(folder / ".lock", lambda: stopping.check(f"waiting for another job's download into {folder}"))


def missing_offline(target: Path, what: str) -> InputError:
    """The error for a file that is not at `target` and may not be fetched."""
    return InputError(
        f"{target} is not there, or not the published file, and offline nothing is fetched.",
        "Where there is network, give prepare_corpus with --download-only instead of --offline; or fetch "
        f"{what} and give --source PATH.",
    )


def unusable_settings(error: Exception) -> UsageError:
    """The error for a network client that could not be built, for it reads the proxies and certificates of the shell.

    Besides InvalidURL of its package that is ImportError (no package for SOCKS), ValueError or OSError.
    """
    return UsageError(
        f"The proxy or certificate settings of this shell cannot be used: {str(error).removesuffix('.')}.",
        "Correct ALL_PROXY, HTTPS_PROXY or SSL_CERT_FILE.",
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
                raise _DownloadError((str(error).splitlines() or [type(error).__name__])[0]) from error
            stopping.check(f"downloading {home.name}")
            reporter.line(f"{home.name}: {error or type(error).__name__}; trying again")
            time.sleep(PAUSE_S * failures)
    difference = home.mismatch(part)
    if difference:
        part.unlink()
        raise _DownloadError(f"not the published file: {difference}")
    part.replace(target)
    return target


def _transfer(url: str, part: Path, reporter: Reporter) -> None:
    """One try to bring the rest of `url` into `part`; raises httpx.HTTPError if it ends too early, UsageError if no
    client can be built.

    Stopped leaves the part for the next run, as every other end does.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        client = httpx.Client(follow_redirects=True, timeout=TIMEOUT_S)
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise unusable_settings(error) from error
    with client, client.stream("GET", url, headers=headers) as response:
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
                stopping.check(f"downloading {part.stem}")
