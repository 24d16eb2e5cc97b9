"""Readers for trees of text files: the IMDB archive, packed or not, and folders split/label/*.txt."""

import bz2
import gzip
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from pipeline.corpus.documents import SPLIT_NAMES, RawDocument
from pipeline.errors import DataError, InputError

_IMDB_MEMBER = re.compile(
    r"(?:\./)?(?:[^/]+/)?(?:(?P<split>train|test)/(?P<label>pos|neg)|(?:train/)?unsup)/(?P<stem>[^/.][^/]*)\.txt"
)
_BLOCK = 512
"""A tar archive is made of blocks of this many bytes and ends with blocks of zeros."""


class Place(NamedTuple):
    """Where a file belongs in the corpus."""

    doc_id: str
    split: str
    label: str | None


def read_imdb(path: Path) -> Iterator[RawDocument]:
    """The reviews of the IMDB archive (tar, also compressed) or of its unpacked folder.

    Both layouts are known: aclImdb/train/{pos,neg,unsup} with test/{pos,neg}, and fastai's imdb/{train,test,unsup}.
    The ids are the same in all forms, for example train/pos/0_9. Raises InputError for a damaged archive and for one
    that holds none of the layouts.
    """
    found = False
    files = _iter_folder(path, _imdb_place) if path.is_dir() else _iter_tar(path, _imdb_place)
    for place, content in files:
        found = True
        yield RawDocument(place.doc_id, place.split, place.label, None, content)
    if not found:
        raise InputError(
            f"{path} holds no IMDB reviews.",
            "Expected aclImdb/{train,test}/{pos,neg}/*.txt with train/unsup, or imdb/{train,test,unsup}.",
        )


def read_folder(path: Path) -> Iterator[RawDocument]:
    """The files split/label/*.txt below `path`; unlabelled text may lie in split/*.txt.

    The id is the path below the folder without the suffix. Raises InputError if there are no split folders, DataError
    for text in a folder that names no split or lies deeper than a label.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder.", "prepare_corpus.kind folder reads a folder split/label/*.txt.")
    found = False
    for place, content in _iter_folder(path, _folder_place):
        found = True
        yield RawDocument(place.doc_id, place.split, place.label, None, content)
    if not found and not any((path / name).is_dir() for name in SPLIT_NAMES):
        raise InputError(f"{path} holds no split folders.", "Expected train/LABEL/*.txt and, if there is one, test/.")


def _imdb_place(name: str) -> Place | None:
    match = _IMDB_MEMBER.fullmatch(name)
    if match is None:
        return None
    split, label, stem = match["split"], match["label"], match["stem"]
    return Place(f"{split}/{label}/{stem}", split, label) if split else Place(f"unsup/{stem}", "unlabelled", None)


def _folder_place(name: str) -> Place | None:
    *folders, file = name.split("/")
    if not folders or file.startswith(".") or not file.endswith(".txt"):
        return None
    split = SPLIT_NAMES.get(folders[0].lower())
    if split is None:
        raise DataError(
            f"Folder {folders[0]!r} names no split ({name}).", "Split folders are train, valid, test and unlabelled."
        )
    if len(folders) > 2:
        raise DataError(f"{name} lies deeper than split/label/file.txt.", "Move it up.")
    label = folders[1] if len(folders) == 2 else None
    if split == "train" and label is not None and SPLIT_NAMES.get(label.lower()) == "unlabelled":
        split = "unlabelled"  # as in aclImdb/train/unsup
    return Place(name.removesuffix(".txt"), split, None if split == "unlabelled" else label)


def _iter_folder(path: Path, place_of: Callable[[str], Place | None]) -> Iterator[tuple[Place, bytes]]:
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = Path(folder).relative_to(path).as_posix() + "/"
        for name in sorted(files):
            place = place_of(prefix.removeprefix("./") + name)
            if place is not None:
                yield place, Path(folder, name).read_bytes()


def _iter_tar(path: Path, place_of: Callable[[str], Place | None]) -> Iterator[tuple[Place, bytes]]:
    """Stream the regular files of a tar archive; nothing is ever unpacked to disk.

    The whole archive is read to its end, so that the checksum of its compression is compared too.
    """
    try:
        with path.open("rb") as raw, _decompressed(raw) as stream:
            tail = _Tail(stream)
            with tarfile.open(fileobj=cast(IO[bytes], tail), mode="r|", bufsize=64 * _BLOCK) as archive:
                while (member := archive.next()) is not None:
                    # tarfile would remember all 100,000 members it has passed; its type stubs leave the list out.
                    archive.members = []  # type: ignore[attr-defined]
                    if member.name.startswith("/") or ".." in member.name.split("/"):
                        raise InputError(f"{path} holds a member with the unsafe name {member.name!r}.")
                    place = place_of(member.name) if member.isreg() else None
                    content = archive.extractfile(member) if place is not None else None
                    if place is not None and content is not None:
                        yield place, content.read()
            while tail.read(1 << 20):
                pass
            if tail.last.strip(b"\0"):
                raise tarfile.ReadError("it ends without its end mark")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            f"{path} is truncated or not a tar archive: {str(error).rstrip('.')}.",
            "Fetch it again, or give another --source.",
        ) from error
    except OSError as error:
        if error.errno is not None:  # the disk's errors have a number, bz2's have none
            raise
        raise InputError(f"{path} is damaged: {error}.", "Fetch it again, or give another --source.") from error


class _Tail:
    """A readable stream that remembers the last block it gave."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.last = b""

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        if data:
            self.last = (self.last + data)[-_BLOCK:] if len(data) < _BLOCK else data[-_BLOCK:]
        return data


def _decompressed(raw: IO[bytes]) -> IO[bytes]:
    """`raw` decompressed; gzip.open and its kin check the checksum, which tarfile's own streaming does not."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(raw)  # type: ignore[return-value]
    if magic.startswith(b"BZh"):
        return bz2.open(raw)
    if magic == b"\xfd7zXZ\0":
        return lzma.open(raw)
    return raw
