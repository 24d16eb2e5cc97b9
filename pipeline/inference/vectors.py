"""Document vectors as Parquet, .npy or JSON lines, made block by block, and read again."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.inference.outputs import Format, rounded

Pooling = Literal["concat", "mean", "max", "last"]
Matrix = NDArray[np.float32]
_METADATA = b"document_vectors"
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class Origin:
    """What document vectors were made by."""

    model: str
    """Folder of the model in full, as it was then; in earlier files as seen from the current folder of then."""
    fingerprint: str
    pooling: Pooling
    size: int
    """Numbers of a vector."""


@dataclass(frozen=True)
class Vectors:
    """Of a block of N texts: their ids, and their vectors [N, size]."""

    ids: Sequence[str]
    vectors: Matrix


class JsonLines:
    """`{"id": ..., "vector": [...]}`, one object a line."""

    def __init__(self, origin: Origin) -> None:
        """Any origin gives the same lines."""

    def block(self, rows: Vectors) -> bytes:
        """Its lines."""
        return b"".join(
            json.dumps({"id": name, "vector": [*map(rounded, vector)]}, ensure_ascii=False).encode() + b"\n"
            for name, vector in zip(rows.ids, rows.vectors.tolist(), strict=True)
        )

    def join(self, blocks: Iterable[bytes], stream: BinaryIO) -> None:
        """One after the other."""
        for block in blocks:
            stream.write(block)


class Npy:
    """A float32 array [N, size] in the order of the texts; ids are not kept."""

    def __init__(self, origin: Origin) -> None:
        self._row_bytes = origin.size * _FLOAT.itemsize
        self._size = origin.size

    def block(self, rows: Vectors) -> bytes:
        """Its numbers."""
        return rows.vectors.astype(_FLOAT).tobytes()

    def join(self, blocks: Iterable[bytes], stream: BinaryIO) -> None:
        """One after the other, below a header with their number, which is known at last."""
        self._write_header(stream, 0)
        n_bytes = sum(stream.write(block) for block in blocks)
        stream.seek(0)
        self._write_header(stream, n_bytes // self._row_bytes)  # as long as before: numpy leaves room for 21 digits

    def _write_header(self, stream: BinaryIO, n_rows: int) -> None:
        described = {"shape": (n_rows, self._size), "fortran_order": False, "descr": _FLOAT.str}
        np.lib.format.write_array_header_1_0(stream, described)


class Parquet:
    """Columns id and vector (a fixed-size list of float32), a row group for each block, the origin in the metadata."""

    def __init__(self, origin: Origin) -> None:
        fields = [pa.field("id", pa.string()), pa.field("vector", pa.list_(pa.float32(), origin.size))]
        self._schema = pa.schema(fields, {_METADATA: json.dumps(vars(origin))})

    def block(self, rows: Vectors) -> bytes:
        """A Parquet file of its own."""
        _, vector = self._schema
        column = pa.FixedSizeListArray.from_arrays(rows.vectors.ravel(), vector.type.list_size)
        written = io.BytesIO()
        pq.write_table(pa.table([pa.array(rows.ids, pa.string()), column], self._schema), written)
        return written.getvalue()

    def join(self, blocks: Iterable[bytes], stream: BinaryIO) -> None:
        """All tables in one file."""
        with pq.ParquetWriter(stream, self._schema) as writer:
            for block in blocks:
                writer.write_table(pq.read_table(pa.BufferReader(block)))


FORMATS: dict[str, Callable[[Origin], Format]] = {".parquet": Parquet, ".npy": Npy, ".jsonl": JsonLines}


def read_origin(path: Path) -> Origin:
    """What the vectors of a Parquet file were made by; InputError if `embed` did not write it."""
    mend = "Make one: python -m pipeline embed --input FILE --output vectors.parquet"
    if not path.is_file():
        raise InputError(f"{path} is {'not a file' if path.exists() else 'not there'}.", mend)
    try:
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
        return Origin(**json.loads(metadata[_METADATA]))
    except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no Parquet file of document vectors.", mend) from error


def read_blocks(path: Path) -> Iterator[Vectors]:
    """The vectors of a Parquet file, a row group at a time."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table: Any = file.read_row_group(number).combine_chunks()
            ids, column = table["id"].to_pylist(), table["vector"]
            flat: Matrix = column.chunk(0).flatten().to_numpy() if len(ids) else np.empty(0, dtype=np.float32)
            yield Vectors(ids, flat.reshape(len(ids), column.type.list_size))
