"""Readers for trees of text files: the IMDB archive, packed or not, and folders split/label/*.txt."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from pipeline.corpus.archive import read_archive
from pipeline.corpus.documents import MAX_DOCUMENT_BYTES, SPLIT_NAMES, RawDocument
from pipeline.errors import DataError, InputError

_IMDB_MEMBER = re.compile(
    r"(?:\./)?(?:[^/]+/)?(?:(?P<split>train|test)/(?P<label>pos|neg)|(?:train/)?unsup)/(?P<stem>[^/.][^/]*)\.txt"
)


T = TypeVar("T")


class Place(NamedTuple):
    """Where a file belongs in the corpus."""

    doc_id: str
    split: str
    label: str | None


def read_imdb(path: Path) -> Iterator[RawDocument]:
    """The reviews of the IMDB archive (tar, also compressed) or of its unpacked folder.

    Both layouts are known: aclImdb/train/{pos,neg,unsup} with test/{pos,neg}, and fastai's imdb/{train,test,unsup}.
    The ids are the same in all forms, for example train/pos/0_9. Raises InputError for an archive that is damaged or
    goes beyond the limits of `pipeline.corpus.archive`, for a link or device in place of a review, and for a source
    that holds none of the layouts.
    """
    found = False
    files = walk_folder(path, _imdb_place) if path.is_dir() else read_archive(path, _imdb_place)
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

    The id is the path below the folder without the suffix. Raises InputError if there are no split folders and for a
    link, pipe or device, DataError for text in a folder that names no split or lies deeper than a label.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder.", "prepare_corpus.kind folder reads a folder split/label/*.txt.")
    found = False
    for place, content in walk_folder(path, _folder_place):
        found = True
        yield RawDocument(place.doc_id, place.split, place.label, None, content)
    if not found:
        folders = any((path / name).is_dir() for name in SPLIT_NAMES)
        raise InputError(
            f"{path} holds no {'.txt files in its split folders' if folders else 'split folders'}.",
            "Expected train/LABEL/*.txt and, if there is one, test/.",
        )


def _imdb_place(name: str) -> Place | None:
    match = _IMDB_MEMBER.fullmatch(name)
    if match is None:
        return None
    split, label, stem = match["split"], match["label"], match["stem"]
    return Place(f"{split}/{label}/{stem}", split, label) if split else Place(f"unsup/{stem}", "unlabelled", None)


def _folder_place(name: str) -> Place | None:
    *folders, file = name.split("/")
    if not folders or file.startswith(".") or not file.lower().endswith(".txt"):
        return None
    split = SPLIT_NAMES.get(folders[0].lower())
    if split is None:
        raise DataError(
            f"Folder {folders[0]!r} names no split ({name!r}).", "Split folders are train, valid, test and unlabelled."
        )
    if len(folders) > 2:
        raise DataError(f"{name!r} lies deeper than split/label/file.txt.", "Move it up.")
    label = folders[1] if len(folders) == 2 else None
    if split == "train" and label is not None and SPLIT_NAMES.get(label.lower()) == "unlabelled":
        split = "unlabelled"  # as in aclImdb/train/unsup
    return Place(name[: -len(".txt")], split, None if split == "unlabelled" else label)


def walk_folder(path: Path, wanted: Callable[[str], T | None]) -> Iterator[tuple[T, bytes]]:
    """What the files below `path` hold that `wanted` has an answer for, with that answer, by name.

    Hidden ones do not count. Raises InputError for a link, pipe or device and for more than MAX_DOCUMENT_BYTES.
    """
    for answer, file in _walk(path, wanted):
        yield answer, _read_file(file, path)


def list_folder(path: Path, wanted: Callable[[str], T | None]) -> Iterator[tuple[T, Path]]:
    """The regular files below `path` that `wanted` has an answer for, as `walk_folder`, unread."""
    for answer, file in _walk(path, wanted):
        if file.is_symlink() or not file.is_file():
            raise _refused(file, path, "a symbolic link" if file.is_symlink() else "no regular file")
        yield answer, file


def _walk(path: Path, wanted: Callable[[str], T | None]) -> Iterator[tuple[T, Path]]:
    for folder, folders, files in os.walk(path, onerror=_fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if Path(folder, name).is_symlink():
                raise _refused(Path(folder, name), path, "a symbolic link")
        prefix = Path(folder).relative_to(path).as_posix() + "/"
        for name in sorted(files):
            answer = wanted(prefix.removeprefix("./") + name)
            if answer is not None:
                yield answer, Path(folder, name)


def _read_file(file: Path, source: Path) -> bytes:
    """The content of a regular file, which no link, pipe or device can be put in the place of."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(file, source, "a symbolic link") from error
        if error.errno == errno.ENXIO:
            raise _refused(file, source, "no regular file") from error
        raise
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _refused(file, source, "no regular file")
        content = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InputError(
            f"{source} holds {_below(file, source)} of more than {MAX_DOCUMENT_BYTES:,} bytes, the most a document "
            "may have.",
            "Cut it into several documents.",
        )
    return content


def _refused(file: Path, source: Path, what: str) -> InputError:
    return InputError(
        f"{source} holds {_below(file, source)}, which is {what}: links are not followed, and only regular files are "
        "read.",
        "Give a copy that holds the files themselves (cp -rL SOURCE COPY).",
    )


def _below(file: Path, source: Path) -> str:
    return repr(file.relative_to(source).as_posix())


def _fail(error: OSError) -> None:
    raise error
