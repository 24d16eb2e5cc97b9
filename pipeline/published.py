"""Files that others publish: their address, and how to tell that a file is the one that was published.

Planning imports this module, so it imports nothing heavy; `pipeline.download` brings the files.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_START_BYTES = 2**20


class Check(Protocol):
    """How a file is told to be the one that was published."""

    def mismatch(self, path: Path) -> str:
        """In what `path` differs from the published file; empty if it does not."""


@dataclass(frozen=True)
class WholeSha256:
    """The SHA-256 of the whole file."""

    sha256: str

    def mismatch(self, path: Path) -> str:
        """In what `path` differs from the published file; empty if it does not."""
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        return "" if found == self.sha256 else f"SHA-256 {found}, published {self.sha256}"


@dataclass(frozen=True)
class WholeSum:
    """The MD5 of the whole file. It tells files apart; it is never a protection."""

    md5: str

    def mismatch(self, path: Path) -> str:
        """In what `path` differs from the published file; empty if it does not."""
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return "" if found == self.md5 else f"MD5 {found}, published {self.md5}"


@dataclass(frozen=True)
class SizeAndStart:
    """The size, and the MD5 of the first 2**20 bytes: all that fastai tells of its files.

    See fastdownload.core.path_stats and, for fastai 1, fastai/datasets.py.
    """

    size_bytes: int
    md5_of_start: str

    def mismatch(self, path: Path) -> str:
        """In what `path` differs from the published file; empty if it does not."""
        size = path.stat().st_size
        if size != self.size_bytes:
            return f"{size:,} bytes, published {self.size_bytes:,}"
        with path.open("rb") as stream:
            found = hashlib.md5(stream.read(_START_BYTES), usedforsecurity=False).hexdigest()
        return "" if found == self.md5_of_start else f"MD5 of the start {found}, published {self.md5_of_start}"


@dataclass(frozen=True)
class PublishedFile:
    """A file that has a public home."""

    url: str
    check: Check
    """What is known of its content."""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]

    def mismatch(self, path: Path) -> str:
        """In what `path` differs from the file as published; empty if it does not. Reads as the check has to."""
        return self.check.mismatch(path)
