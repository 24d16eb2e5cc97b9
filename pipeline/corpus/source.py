"""What the outside data is: found, identified and checked without reading its documents.

`status` and planning import this module, so it imports nothing heavy.
"""

import errno
import os
from pathlib import Path
from stat import S_ISREG
from typing import Any

from pipeline.artifact import Manifest, hash_file, hash_json
from pipeline.corpus import rotten_tomatoes
from pipeline.corpus.labelled_lines import NAMES, SENTENCES
from pipeline.errors import InputError, UsageError
from pipeline.progress import Reporter
from pipeline.published import PublishedFile, SizeAndStart, WholeSha256, WholeSum
from pipeline.settings import GENERATED_KINDS, PrepareCorpusSettings
from pipeline.stage import Source

CONTENT_HASH_BYTES = 64 * 2**20
"""Folders up to this size are identified by their content."""
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
"""What the system says of a path at which nothing can be."""


IMDB_HOMES = (
    PublishedFile(
        "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz", WholeSum("7c2ac02c03563afcf9b574c7e56c153a")
    ),
    # fastai's layout; size and sum as in fastai/data/download_checks.py.
    PublishedFile(
        "https://s3.amazonaws.com/fast-ai-nlp/imdb.tgz", SizeAndStart(144_440_600, "90f9b1c4ff43a90d67553c9240dc0249")
    ),
)
# 600,901 bytes, as Keras shows while it fetches them, and the notes' 600,893 characters. The sum was taken of a copy
# whose UTF-8 somebody had read as Windows-1252, with that undone.
NIETZSCHE_HOMES = (
    PublishedFile(
        "https://s3.amazonaws.com/text-datasets/nietzsche.txt",
        WholeSha256("23cf69874ab69d3d256099ab530ea4be24d47d9675b673bcc67cbcd6298ec647"),
    ),
)
SENTENCES_HOMES = (
    PublishedFile("https://archive.ics.uci.edu/static/public/331/sentiment+labelled+sentences.zip", SENTENCES),
    PublishedFile(
        "https://archive.ics.uci.edu/ml/machine-learning-databases/00331/sentiment%20labelled%20sentences.zip",
        SENTENCES,
    ),
)
NAMES_HOMES = (PublishedFile("https://download.pytorch.org/tutorial/data.zip", NAMES),)


def homes_of(kind: str) -> tuple[PublishedFile, ...]:
    """Where the files of a kind of corpus can be downloaded by their address; empty where they cannot."""
    homes = {"imdb": IMDB_HOMES, "nietzsche": NIETZSCHE_HOMES, "sentences": SENTENCES_HOMES, "names": NAMES_HOMES}
    return homes.get(kind, ())


def pinned_identity(settings: PrepareCorpusSettings) -> dict[str, Any] | None:
    """The identity of a source that is generated, not read; None for all others."""
    return {"kind": settings.kind} if settings.kind in GENERATED_KINDS else None


def known_identity(settings: PrepareCorpusSettings, sealed_source: dict[str, Any] | None) -> dict[str, Any] | None:
    """The identity of `settings.source`: kind and SHA-256, for a file also its size; None if it does not exist, unless
    `sealed_source` says that the sealed corpus was made from it.

    A file that has the path, size and time stamp recorded in `sealed_source` is not hashed again. A folder is
    identified by the relative names, sizes and contents of its files, wherever it lies; one of more than 64 MB by
    names, sizes and time stamps instead, so that a copy of it counts as another source. Hidden files, links, pipes and
    devices do not count; readers refuse them. Raises InputError if the source is no file and no folder.
    """
    if settings.source is None:
        return None
    path = Path(settings.source).expanduser().absolute()
    try:
        if path.is_dir():
            return {"kind": settings.kind, "sha256": _hash_tree(path)}
        stat = path.stat()
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return sealed_source["identity"] if sealed_source and _is_gone(settings, sealed_source) else None
    if not S_ISREG(stat.st_mode):
        raise InputError(f"{path} is neither a file nor a folder.", "Give the right path with --source.")
    here = {"path": str(path), "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    sealed = sealed_source or {}
    if all(sealed.get(key) == value for key, value in here.items()) and "sha256" in sealed["identity"]:
        sha256 = sealed["identity"]["sha256"]
    else:
        sha256 = hash_file(path)
    return {"kind": settings.kind, "sha256": sha256, "size_bytes": stat.st_size}


def locate(settings: PrepareCorpusSettings, sealed: Manifest | None, home: Path, reporter: Reporter) -> Source:
    """The source of the corpus: generated, the file or folder of `settings.source`, or a download.

    Without `settings.source`, or with one that is no longer there, a sealed corpus of the same kind keeps its source,
    and nothing is downloaded. Raises InputError for a missing source, a wrong checksum or a download that fails,
    UsageError for a folder of tables that holds `home`/data.
    """
    pinned = pinned_identity(settings)
    if pinned is not None:
        return Source(None, pinned)
    sealed_source = sealed.source if sealed else None
    if settings.source is not None:
        if sealed_source is not None and _is_gone(settings, sealed_source):
            return _remembered(settings, sealed_source)
        found = _given(settings, sealed_source)
        if settings.kind == "table":
            _check_is_no_home(found, home)
        return found
    if sealed_source is not None and sealed_source["identity"].get("kind") == settings.kind:
        return _remembered(settings, sealed_source)
    return download(settings, home, reporter)


def download(settings: PrepareCorpusSettings, home: Path, reporter: Reporter) -> Source:
    """The published file of `settings.kind`, fetched into `home`/data/downloads unless it lies there already."""
    folder = home / "data" / "downloads"
    homes = homes_of(settings.kind)
    if homes:
        from pipeline.download import fetch

        path, url = fetch(homes, folder, reporter, offline=settings.offline)
    elif settings.kind == "rotten-tomatoes":
        from pipeline.corpus.wheel import fetch_wheel

        path, url = fetch_wheel(folder, reporter, offline=settings.offline)
    else:
        raise InputError(f"prepare_corpus.kind {settings.kind} needs a source.", "Give it with --source PATH.")
    return _given(settings.model_copy(update={"source": str(path)}), None, url)


def _given(settings: PrepareCorpusSettings, sealed_source: dict[str, Any] | None, url: str | None = None) -> Source:
    path = Path(settings.source or "").expanduser().absolute()
    identity = known_identity(settings, sealed_source)
    if identity is None:
        raise InputError(f"There is no source {path}.", "Give the right path with --source.")
    if path.is_dir():
        _check_no_sum(path, settings)
        return Source(path, identity, {"path": str(path), "url": None, "published": None})
    _check(path, identity["sha256"], settings)
    stat = path.stat()
    record = {"path": str(path), "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "url": url}
    return Source(path, identity, record | {"published": _is_published(path, settings)})


def _check_no_sum(folder: Path, settings: PrepareCorpusSettings) -> None:
    if settings.sha256 is not None:
        raise UsageError(f"prepare_corpus.sha256 is set, but {folder} is a folder.", "Unset it, or name a file.")


def _check(path: Path, found: str, settings: PrepareCorpusSettings) -> None:
    expected = [settings.sha256]
    if settings.kind == "rotten-tomatoes":
        whole = path.suffix != ".bz2"
        expected.append(rotten_tomatoes.WHEEL_SHA256 if whole else rotten_tomatoes.MEMBER_SHA256)
    for sha256 in expected:
        if sha256 is not None and found != sha256:
            raise InputError(
                f"{path} has SHA-256 {found}, expected {sha256}.", "Fetch it again, or give another --source."
            )


def _is_published(path: Path, settings: PrepareCorpusSettings) -> bool | None:
    """Whether `path` is the file as published; None where nothing is published."""
    homes = homes_of(settings.kind)
    if homes:
        return any(not home.mismatch(path) for home in homes)
    return True if settings.kind == "rotten-tomatoes" else None


def _is_gone(settings: PrepareCorpusSettings, sealed_source: dict[str, Any]) -> bool:
    """True if the sealed corpus was made from `settings.source`, which is no longer there and no longer needed."""
    path = Path(settings.source or "").expanduser().absolute()
    same = sealed_source.get("path") == str(path) and sealed_source["identity"].get("kind") == settings.kind
    return same and not path.exists()


def _remembered(settings: PrepareCorpusSettings, sealed_source: dict[str, Any]) -> Source:
    """The source of a sealed corpus; without a path if it is no longer there, and what is there now if it changed."""
    record = {key: value for key, value in sealed_source.items() if key != "identity"}
    path = Path(record["path"])
    if "size_bytes" in sealed_source["identity"]:  # a file; the sum may have been asked for only now
        _check(path, sealed_source["identity"]["sha256"], settings)
    else:
        _check_no_sum(path, settings)
    try:
        stat = path.stat()
        same = "mtime_ns" in record and (stat.st_size, stat.st_mtime_ns) == (record["size_bytes"], record["mtime_ns"])
        if path.is_dir():
            same = _hash_tree(path) == sealed_source["identity"]["sha256"]
    except OSError:
        return Source(None, sealed_source["identity"], record)
    if not same:
        return _given(settings.model_copy(update={"source": str(path)}), sealed_source, record.get("url"))
    return Source(path, sealed_source["identity"], record)


def _check_is_no_home(source: Source, home: Path) -> None:
    """UsageError for a source folder that artifacts are put into: they are tables, and would be read as such."""
    if source.path is not None and (home / "data").resolve().is_relative_to(source.path.resolve()):
        raise UsageError(
            f"{source.path} is where artifacts of runs are put, which would be read as documents.",
            "Put the documents into a folder of their own, such as data/raw, and give that with --source.",
        )


def _hash_tree(path: Path) -> str:
    entries: list[tuple[str, Path, os.stat_result]] = []
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            file = Path(folder, name)
            if not name.startswith(".") and S_ISREG((stat := file.lstat()).st_mode):
                entries.append((file.relative_to(path).as_posix(), file, stat))
    entries.sort()
    by_content = sum(stat.st_size for _, _, stat in entries) <= CONTENT_HASH_BYTES
    rows = [
        [name, stat.st_size, hash_file(file) if by_content else stat.st_mtime_ns] for name, file, stat in entries
    ]
    return hash_json({"by": "content" if by_content else "time stamp", "files": rows})
