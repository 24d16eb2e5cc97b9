"""Reading a tar archive as a stream, within limits: nothing is unpacked to disk and no claim of a header is believed.

Python's `tarfile` takes a damaged header for the end of the archive, reads extension headers of any size into memory
and fills sparse members with zeros without end. So only its parser of a single header block is used.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

from pipeline.corpus.documents import MAX_DOCUMENT_BYTES
from pipeline.errors import InputError

MAX_MEMBERS = 100_000_000
"""Each document takes some 30 bytes of memory until its split is known: 3 GB. The IMDB archive has 100,025 members."""
MAX_RATIO = 500
"""Unpacked bytes to packed bytes. The IMDB archive has 3.7, an xz archive of two-letter documents 303; a bomb of zeros
has 1,030 in gzip and more in the others."""
RATIO_FREE_BYTES = 64 * 2**20
"""An archive that unpacks to less does no harm, whatever its ratio."""
MAX_HEADER_BYTES = 2**20
"""Of one extension header. A path has at most 4,096 bytes; the rest is for attributes some archivers add."""
XZ_MEMORY_BYTES = 256 * 2**20
"""`xz -9` needs 65 MB to unpack; a header may ask for 4 GB."""
_BLOCK = 512
"""A tar archive is made of blocks of this many bytes and ends with blocks of zeros."""
_PIECE = 2**18
_PACKED_PIECE = 2**14
"""Bytes taken from the file at a time; what is taken counts as read, so it is little."""
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a named pipe", tarfile.DIRTYPE: "a folder",
}
_ORDINARY_NUMBERS = re.compile(
    rb"(?:[0-7]{7}\0){3}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 0(?s:.{172})(?:[0-7]{7}\0|\0{8}){2}"
)
"""From byte 100 on: mode, owner, group, size, time, checksum, type, then link, magic and names, then device."""
_MEND = "Do not use it unless you know who made it; give another --source."

T = TypeVar("T")


def read_archive(path: Path, wanted: Callable[[str], T | None]) -> Iterator[tuple[T, bytes]]:
    """The content of the regular files of the tar archive `path` (plain, gzip, bz2 or xz) that `wanted` has an answer
    for, with that answer, in the order of the archive.

    It is read to its end, so that the checksum of its compression is compared too. Raises InputError for an archive
    that is damaged, goes beyond one of the limits of this module, has a member with an unsafe name, a sparse member,
    or a wanted member that is no regular file.
    """
    try:
        with path.open("rb") as raw:
            stream = _Unpacked(raw, path)
            for number, member in enumerate(_members(stream, path), 1):
                if number > MAX_MEMBERS:
                    raise InputError(f"{path} has more than {MAX_MEMBERS:,} members.", "Split it into several corpora.")
                if member.name.startswith("/") or ".." in member.name.split("/"):
                    raise InputError(f"{path} holds a member with the unsafe name {_shown(member.name)}.", _MEND)
                answer = wanted(member.name)
                if answer is None:
                    stream.skip(member.size)
                else:
                    _check_document(member, path)
                    yield answer, stream.exactly(member.size)
                stream.skip(-member.size % _BLOCK)
            stream.finish()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, RecursionError) as error:
        raise InputError(
            f"{path} is truncated or not a tar archive: {str(error).rstrip('.')}.",
            "Fetch it again, or give another --source.",
        ) from error
    except OSError as error:
        if error.errno is not None:  # the disk's errors have a number, bz2's have none
            raise
        raise InputError(f"{path} is damaged: {error}.", "Fetch it again, or give another --source.") from error


class _Member(NamedTuple):
    """One entry; `size` is what it takes in the archive."""

    name: str
    kind: bytes
    size: int


def _check_document(member: _Member, path: Path) -> None:
    if member.kind not in _REGULAR:
        what = _KINDS.get(member.kind, "no regular file")
        raise InputError(
            f"{path} holds {_shown(member.name)}, which is {what} where a document is expected.",
            "Links are not followed: pack the files themselves (tar --dereference --hard-dereference).",
        )
    if member.size > MAX_DOCUMENT_BYTES:
        raise InputError(
            f"{path} holds {_shown(member.name)} of {member.size:,} bytes; a document has at most "
            f"{MAX_DOCUMENT_BYTES:,}.",
            "Cut it into several documents.",
        )


def _members(stream: "_Unpacked", path: Path) -> Iterator[_Member]:
    """The entries up to the end mark; whoever takes one reads its content before the next."""
    name: str | None = None
    size: int | None = None
    while True:
        block = stream.exactly(_BLOCK, at_end="it ends without its end mark")
        if not block.strip(b"\0"):
            return
        ordinary = _ordinary(block)
        if ordinary is not None:
            yield _Member(name or ordinary.name, ordinary.kind, ordinary.size if size is None else size)
            name = size = None
            continue
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if header.size < 0:
            raise tarfile.ReadError(f"a header has the size {header.size}")
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            content = _extension(stream, header.size, path)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
                continue
            records = _pax_records(content)
            if any(key.startswith("GNU.sparse.") for key in records):
                raise InputError(f"{path} holds the sparse file {_shown(header.name)}.", _MEND)
            name = records.get("path", name)
            size = _pax_size(records["size"]) if "size" in records else size
        elif header.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            stream.skip(header.size + -header.size % _BLOCK)
        elif header.type == tarfile.GNUTYPE_SPARSE:
            raise InputError(f"{path} holds the sparse file {_shown(name or header.name)}.", _MEND)
        else:
            has_content = header.type in _REGULAR or header.type not in tarfile.SUPPORTED_TYPES
            yield _Member(name or header.name, header.type, (header.size if size is None else size) * has_content)
            name = size = None


def _ordinary(block: bytes) -> _Member | None:
    """The member of the header of a regular file as most archivers write it, ten times as fast as tarfile says it.

    None for any other header.
    """
    numbers = _ORDINARY_NUMBERS.match(block, 100)
    # The low half of Adler-32 is one more than the sum of so few bytes.
    found = sum((zlib.adler32(block[at : at + 256]) & 0xFFFF) - 1 for at in (0, 256))
    if numbers is None or found - sum(numbers[2]) - sum(b"\0 ") + 8 * ord(" ") != int(numbers[2], 8):
        return None
    name = block[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    prefix = block[345:500].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return _Member(f"{prefix}/{name}" if prefix else name, tarfile.REGTYPE, int(numbers[1], 8))


def _extension(stream: "_Unpacked", size: int, path: Path) -> bytes:
    if size > MAX_HEADER_BYTES:
        raise InputError(
            f"{path} has an extension header of {size:,} bytes; {MAX_HEADER_BYTES:,} is the limit.", _MEND
        )
    content = stream.exactly(size)
    stream.skip(-size % _BLOCK)
    return content


def _pax_records(content: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE` of a pax header (POSIX.1-2001)."""
    records: dict[str, str] = {}
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + 9)
        digits = content[at:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = content[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if at + length > len(content) or not record.endswith(b"\n") or not equals:
            raise tarfile.ReadError("a pax header is damaged")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at += length
    return records


def _pax_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise tarfile.ReadError("a pax header has a size that is no number")
    return int(text)


def _shown(name: str) -> str:
    """A name for a message: without control characters, and not too long."""
    return repr(name if len(name) <= 200 else name[:200] + "...")


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Unpacked:
    """The unpacked bytes of an archive; InputError once they are far more than what was read of the file."""

    def __init__(self, raw: IO[bytes], path: Path) -> None:
        self._raw, self._path = raw, path
        self._stream = _decompressed(raw)
        self._data, self._at = b"", 0
        self._position = 0
        """Bytes unpacked so far."""
        self._harmless = RATIO_FREE_BYTES
        """Up to here they were not too many when last looked at."""

    def exactly(self, size: int, at_end: str = "unexpected end of data") -> bytes:
        """The next `size` bytes; memory is taken as they come, not as they are promised."""
        end = self._at + size
        if end <= len(self._data):
            start, self._at = self._at, end
            return self._data[start:end]
        pieces = []
        while size:
            if not self._more():
                raise tarfile.ReadError(at_end)
            pieces.append(self._data[self._at : self._at + size])
            self._at += len(pieces[-1])
            size -= len(pieces[-1])
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        while size:
            if not self._more():
                raise tarfile.ReadError("unexpected end of data")
            passed = min(size, len(self._data) - self._at)
            self._at += passed
            size -= passed

    def finish(self) -> None:
        """Read what comes after the end mark: nothing but zeros."""
        while self._more():
            if self._data[self._at :].strip(b"\0"):
                raise tarfile.ReadError("there is more after its end mark")
            self._at = len(self._data)

    def _more(self) -> bool:
        """Whether there are bytes left; if so, some are in memory now, but never more than a piece."""
        if self._at < len(self._data):
            return True
        self._data, self._at = self._stream.read(_PIECE), 0
        self._position += len(self._data)
        if self._position > self._harmless:
            self._harmless = max(RATIO_FREE_BYTES, MAX_RATIO * self._raw.tell())
        if self._position > self._harmless:
            raise InputError(
                f"{self._path} unpacks to more than {MAX_RATIO} times its size: {self._position:,} bytes out of its "
                f"first {self._raw.tell():,}.",
                "It looks like a decompression bomb. If it is yours, give it as a folder (kind folder or imdb).",
            )
        return bool(self._data)


def _decompressed(raw: IO[bytes]) -> _Readable:
    """`raw` decompressed; gzip.open and its kin check the checksum, which tarfile's own streaming does not."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(raw)
    if magic.startswith(b"BZh"):
        return bz2.open(raw)
    if magic == b"\xfd7zXZ\0":
        return io.BufferedReader(_XzReader(raw), _PIECE)
    return raw


class _XzReader(io.RawIOBase):
    """The streams of an .xz file; lzma.open has no limit for the memory that a header may ask for."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the start of `buffer`; 0 at the end of the last stream."""
        data = b""
        while not data:
            if self._decompressor.eof:
                rest = self._decompressor.unused_data.lstrip(b"\0")  # zeros may stand between streams
                while not rest:
                    packed = self._raw.read(_PACKED_PIECE)
                    if not packed:
                        return 0
                    rest = packed.lstrip(b"\0")
                self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES)
            else:
                rest = self._raw.read(_PACKED_PIECE) if self._decompressor.needs_input else b""
                if self._decompressor.needs_input and not rest:
                    raise EOFError("compressed file ended before the end-of-stream marker was reached")
            data = self._decompressor.decompress(rest, len(buffer))
        buffer[: len(data)] = data
        return len(data)
