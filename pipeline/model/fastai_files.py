"""Files of a language model saved by fastai: published, found, and taken out of their archive.

Nothing is unpickled here, and nothing is written but two files with names of our own.
"""

import gzip
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from pipeline.errors import InputError, UsageError
from pipeline.published import PublishedFile, SizeAndStart

MAX_BYTES = 4 * 2**30
"""Of a file of weights, and of all that an archive unpacks to. WT103 with its optimizer takes 0.5 GB."""
MAX_RATIO = 20
"""Times its own size that an archive may unpack to, beyond the first 16 MiB; weights hardly compress."""
FREE_BYTES = 16 * 2**20
MAX_MEMBERS = 1000
_DIRECTION = re.compile(r"(?<![a-z])(?:fwd|bwd|forwards?|backwards?)(?![a-z])")
_MEND = "Give an archive, or the .pth and the .pkl, of a language model saved by fastai."


# Addresses from fastai.data.external; sizes and sums from fastai/datasets.py of fastai 1.0.61, for fastai 2 has none.
PUBLISHED = {
    "wt103-fwd": PublishedFile(
        "https://s3.amazonaws.com/fast-ai-modelzoo/wt103-fwd.tgz",
        SizeAndStart(105_067_061, "7d1114cd9684bf9d1ca3c9f6a54da6f9"),
    ),
    "wt103-bwd": PublishedFile(
        "https://s3.amazonaws.com/fast-ai-modelzoo/wt103-bwd.tgz",
        SizeAndStart(105_205_312, "20b06f5830fd5a891d21044c28d3097f"),
    ),
}


@dataclass(frozen=True)
class SavedModel:
    """Where a saved language model lies: one archive, or a file of weights and one of its vocabulary."""

    paths: tuple[Path, ...]
    """The archive alone, or weights and vocabulary in this order."""


def locate(source: Path, vocabulary: Path | None) -> SavedModel:
    """The files that `source` means: an archive, a .pth beside which `vocabulary` is named, or a folder with both.

    Raises InputError if one does not exist or the pair is not complete.
    """
    for path in (source, vocabulary):
        if path is not None and not path.is_file() and not (path.is_dir() and vocabulary is None):
            raise InputError(f"There is no file {path}.", f"{_MEND} Known by name: {', '.join(PUBLISHED)}.")
    if vocabulary is not None:
        weights, pickled = (vocabulary, source) if source.suffix == ".pkl" else (source, vocabulary)
        return SavedModel((weights, pickled))
    if source.is_dir():
        names = [path.name for path in sorted(source.iterdir()) if path.is_file()]
        return SavedModel(tuple(source / name for name in _pair(names, source)))
    if source.suffix in (".pth", ".pkl"):
        other = "vocabulary (itos*.pkl)" if source.suffix == ".pth" else "weights (.pth)"
        raise InputError(f"{source} is half of a model; its {other} is missing.", "Name both files.")
    return SavedModel((source,))


def direction_in(name: str) -> str | None:
    """The direction that a file's name tells, if it tells one: `lstm_bwd.pth` reads backwards."""
    found = {match[0] for match in _DIRECTION.findall(name.lower())}
    return {"f": "fwd", "b": "bwd"}[found.pop()] if len(found) == 1 else None


def check_published(name: str, path: Path) -> None:
    """InputError if `path` is not the archive published as `name`."""
    if not path.is_file():
        raise InputError(f"There is no {path}.", f"Give --source the path of {PUBLISHED[name].name}.")
    difference = PUBLISHED[name].mismatch(path)
    if difference:
        raise InputError(
            f"{path} is not {PUBLISHED[name].name} as published: {difference}.",
            f"Fetch it again, or import it as a file of your own: name its path in place of {name}.",
        )


def unpack(model: SavedModel, folder: Path, direction: str) -> tuple[Path, Path]:
    """Paths of weights and vocabulary; out of an archive they are streamed into `folder`, under names of our own.

    Raises InputError for an archive that is damaged, too large, holds names that lead outside or links, or does not
    hold exactly one .pth and one .pkl; UsageError for weights that are named after the other direction.
    """
    if len(model.paths) == 2:
        for path in model.paths:
            require_direction(path.name, direction, path.parent)
        return model.paths[0], model.paths[1]
    archive = model.paths[0]
    taken: dict[str, str] = {}
    try:
        for member, content in _members(archive):
            suffix = Path(member).suffix
            if Path(member).name.startswith(".") or suffix not in (".pth", ".pkl"):
                continue
            if suffix in taken:
                _pair([*taken.values(), member], archive)
            with (folder / f"model{suffix}").open("wb") as stream:
                shutil.copyfileobj(content, stream, 2**20)
            taken[suffix] = member
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, ValueError, RecursionError) as error:
        raise InputError(f"{archive} is truncated or no .tgz archive: {str(error).rstrip('.')}.", _MEND) from error
    weights, _ = _pair(list(taken.values()), archive)
    require_direction(Path(weights).name, direction, archive)
    return folder / "model.pth", folder / "model.pkl"


def require_direction(name: str, direction: str, where: Path) -> None:
    """UsageError if a file is named after the other direction."""
    if direction_in(name) not in (None, direction):
        raise UsageError(
            f"{where}: by its name {name} reads {direction_in(name)}, but the direction given is {direction}.",
            "Give the right --direction, or rename the file if its name is wrong.",
        )


def _pair(names: list[str], where: Path) -> tuple[str, str]:
    """The one .pth and the one .pkl among `names`."""
    found = []
    for suffix in (".pth", ".pkl"):
        fitting = [name for name in names if name.endswith(suffix) and not name.startswith(".")]
        if len(fitting) != 1:
            said = f"{len(fitting)} files {suffix}" + (f" ({', '.join(fitting)})" if fitting else "")
            raise InputError(
                f"{where} holds {said}; a saved model is one .pth and one itos*.pkl.",
                "Name the two files that belong together.",
            )
        found.append(fitting[0])
    return found[0], found[1]


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file of a .tgz, streamed; the archive is read to its end and its sum checked."""
    limit = min(MAX_BYTES, FREE_BYTES + MAX_RATIO * archive.stat().st_size)
    with gzip.open(archive) as unzipped:
        stream = _Limited(cast(IO[bytes], unzipped), limit, archive)
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
            for number, member in enumerate(tar):
                if member.name.startswith("/") or ".." in member.name.split("/"):
                    raise InputError(f"{archive} holds a member with the unsafe name {member.name!r}.", _MEND)
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise InputError(f"{archive} holds {member.name!r}, which is no regular file.", _MEND)
                if number >= MAX_MEMBERS:
                    raise InputError(f"{archive} holds more than {MAX_MEMBERS:,} members.", _MEND)
                if member.size > limit:
                    raise _too_large(archive, limit)
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, content
        while stream.read(2**20):
            pass


class _Limited:
    """A readable stream that refuses to give more than `limit` bytes."""

    def __init__(self, stream: IO[bytes], limit: int, archive: Path) -> None:
        self._stream, self._limit, self._archive = stream, limit, archive
        self._given = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._given += len(data)
        if self._given > self._limit:
            raise _too_large(self._archive, self._limit)
        return data


def _too_large(archive: Path, limit: int) -> InputError:
    return InputError(
        f"{archive} unpacks to more than {limit:,} bytes.", "If you trust it, unpack it and name the .pth and the .pkl."
    )
