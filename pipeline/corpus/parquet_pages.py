"""How large the pages of a Parquet file are, read from the page headers.

The sizes in the footer are the writer's word only. What decides how much memory a read takes is the header of each
page, so those are looked at before anything is decompressed. The footer is read here too: pyarrow 26 ends the whole
process when Python asks it for the columns of a damaged one. Footer and headers are structs in Thrift's compact
protocol (parquet-format: parquet.thrift, README "Data Pages"; thrift: thrift-compact-protocol.md).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pipeline.corpus.archive import MAX_RATIO, RATIO_FREE_BYTES
from pipeline.errors import InputError

MAX_PAGE_BYTES = 256 * 2**20
"""Writers make pages of 1 MB, DuckDB of 100 MB; the format allows 2 GB."""
MAX_FOOTER_BYTES = 16 * 2**20
"""Some 150 bytes for each column of a row group: 50,000 row groups of two columns."""
_HEADER_BYTES = (2**12, 2**16, 2**20, 2**24)
"""Tried one after the other: a header may hold the least and the greatest value. Arrow's own limit is the last."""
_DEEPEST = 16
_I32, _I64, _DOUBLE, _BINARY, _LIST, _STRUCT = 5, 6, 7, 8, 9, 12
_ROW_GROUPS, _COLUMNS, _META_DATA = (4, _LIST), (1, _LIST), (3, _STRUCT)
_VALUES, _CHUNK_BYTES, _DATA_PAGE, _DICTIONARY_PAGE = (5, _I64), (7, _I64), (9, _I64), (11, _I64)
_UNPACKED, _PACKED = (2, _I32), (3, _I32)
Struct = dict[tuple[int, int], Any]
"""Fields by number and type: a field of another type than its definition's does not count, as in Thrift itself."""


def largest_pages(path: Path, columns: Sequence[int]) -> list[int]:
    """Unpacked bytes of the largest page of each row group, among the leaf columns with the numbers `columns`.

    Raises InputError if a header is damaged, if a page is larger than MAX_PAGE_BYTES, and if the pages of a row group
    unpack to more than MAX_RATIO times their size.
    """
    found = []
    with path.open("rb") as stream:
        for number, chunks in enumerate(_row_groups(stream, path)):
            packed = unpacked = largest = 0
            for column in columns:
                for stored, size in _pages(stream, path, chunks[column]):
                    if size > MAX_PAGE_BYTES:
                        raise InputError(
                            f"{path} has a page of {size:,} bytes in row group {number}; {MAX_PAGE_BYTES:,} is the "
                            "limit.",
                            "Write it again with smaller pages, or as .csv or .jsonl.",
                        )
                    packed, unpacked, largest = packed + stored, unpacked + size, max(largest, size)
            if unpacked > RATIO_FREE_BYTES and unpacked > MAX_RATIO * packed:
                raise InputError(
                    f"{path} unpacks {packed:,} bytes of row group {number} to {unpacked:,}, more than {MAX_RATIO} "
                    "times.",
                    "It looks like a decompression bomb. If it is yours, write it without compression.",
                )
            found.append(largest)
    return found


def _row_groups(stream: IO[bytes], path: Path) -> list[list[tuple[int, int]]]:
    """Where the pages of each column chunk begin and end, by row group."""
    size = stream.seek(-8, 2)
    length = int.from_bytes(stream.read(4), "little")
    if length > MAX_FOOTER_BYTES:
        raise InputError(f"{path} has a footer of {length:,} bytes; {MAX_FOOTER_BYTES:,} is the limit.", "Split it.")
    stream.seek(max(size - length, 0))
    try:
        footer = _Compact(stream.read(length)).struct()
        return [[_place(chunk[_META_DATA]) for chunk in group[_COLUMNS]] for group in footer[_ROW_GROUPS]]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "its footer") from error


def _place(chunk: Struct) -> tuple[int, int]:
    if chunk.get(_VALUES) == 0:
        return 0, 0  # Arrow unpacks nothing of it, and where it wrote no row it names no place
    first: int = chunk[_DATA_PAGE]
    if chunk.get(_DICTIONARY_PAGE, 0) > 0:
        first = min(first, chunk[_DICTIONARY_PAGE])
    if first < 0 or chunk[_CHUNK_BYTES] < 0:
        raise ValueError("a negative place")
    return first, first + chunk[_CHUNK_BYTES]


def _pages(stream: IO[bytes], path: Path, chunk: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Bytes of each page of a column chunk: as stored, with its header, and unpacked."""
    at, end = chunk
    while at < end:
        for size in _HEADER_BYTES:
            stream.seek(at)
            header = _Compact(stream.read(size))
            try:
                fields = header.struct()
                unpacked, packed = fields[_UNPACKED], fields[_PACKED]
                break
            except (IndexError, KeyError, ValueError):
                continue
        else:
            raise _damaged(path, f"the page header at byte {at:,}")
        if not (0 <= unpacked < 2**31 and 0 <= packed < 2**31):
            raise _damaged(path, f"the page header at byte {at:,}")
        yield header.at + packed, unpacked
        at += header.at + packed


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} is truncated or not a Parquet file: {what} is damaged.", "Make it again, or give another --source."
    )


class _Compact:
    """A reader of Thrift's compact protocol; of text and doubles it keeps the size only.

    Its methods raise IndexError at the end of the data and ValueError for what the protocol does not know.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self, depth: int = 0) -> Struct:
        """The fields of a struct."""
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        found: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            if not 0 <= number < 2**15:
                raise ValueError("a field number beyond 16 bits")
            kind = head & 15
            found[number, kind] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if 4 <= kind <= _I64:
            return self._zigzag()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _LIST + 1):
            head = self._byte()
            size = self._varint() if head >> 4 == 15 else head >> 4
            return [self._value(head & 15, depth + 1) for _ in range(size)]
        if kind in (1, 2, 3):  # a boolean or byte; a boolean field has its value in its type instead
            return self._byte()
        if kind in (_BINARY, _DOUBLE):
            size = self._varint() if kind == _BINARY else 8
            self.at += size
            if self.at > len(self._data):
                raise IndexError("beyond the data")
            return size
        raise ValueError(f"unknown type {kind}")

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
