"""The two passes over a corpus: cleaned documents into a temporary file, then by split into the artifact.

Only a few numbers per document stay in memory; the text never does.
"""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import stopping
from pipeline.corpus.cleaning import clean_name
from pipeline.corpus.documents import SPLITS, RawDocument

ROW_GROUP_DOCUMENTS = 2_000
ROW_GROUP_BYTES = 32 * 2**20
"""A row group is closed at the first of these two limits, so that a few huge documents do not fill the memory."""
_SPOOLED = pa.schema(
    [("doc_id", pa.string()), ("label", pa.string()), ("group", pa.string()), ("n_chars", pa.int32()),
     ("text", pa.string())]
)
SCHEMA = pa.schema(
    [("doc_id", pa.string()), ("split", pa.string()), ("label", pa.string()), ("group", pa.string()),
     ("n_chars", pa.int32()), ("text", pa.string())]
)
"""Columns of documents.parquet."""


@dataclass(frozen=True)
class Index:
    """What the split needs to know of N documents, in source order."""

    splits: npt.NDArray[np.int8]
    """Position of the source's split in SPLITS."""
    labels: npt.NDArray[np.int32]
    """Position in `label_names`, -1 for none."""
    groups: npt.NDArray[np.int32]
    """Number of the group, -1 for none."""
    n_chars: npt.NDArray[np.int32]
    text_hashes: npt.NDArray[np.uint64]
    """Equal for texts that are equal in lower case with white space collapsed."""
    ranks: npt.NDArray[np.uint64]
    """Seeded hash of the id: a random order that depends on nothing else."""
    label_names: list[str]
    group_names: list[str]
    row_groups: list[int]
    """Documents in each row group of the spool."""


def text_hash(text: str) -> bytes:
    """Eight bytes of BLAKE2b over the text in lower case with white space collapsed."""
    return hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest()


class Spool:
    """A temporary Parquet file of cleaned documents, and the index that is gathered on the way."""

    def __init__(self, path: Path, seed: int) -> None:
        self._writer = pq.ParquetWriter(path, _SPOOLED, compression="lz4", use_dictionary=False, write_statistics=False)
        self._key = seed.to_bytes(8, "little")
        self._columns: dict[str, list[Any]] = {name: [] for name in _SPOOLED.names}
        self._bytes = 0
        self._splits, self._labels, self._groups = array("b"), array("i"), array("i")
        self._n_chars, self._hashes, self._ranks = array("i"), bytearray(), bytearray()
        self._label_codes: dict[str, int] = {}
        self._group_codes: dict[str, int] = {}
        self._row_groups: list[int] = []

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, document: RawDocument, text: str) -> None:
        """Append one document with its cleaned text."""
        doc_id = clean_name(document.doc_id)
        label = clean_name(document.label) or None if document.label and document.split != "unlabelled" else None
        group = clean_name(document.group) or None if document.group else None
        for name, value in zip(_SPOOLED.names, (doc_id, label, group, len(text), text), strict=True):
            self._columns[name].append(value)
        self._bytes += len(text)
        self._splits.append(SPLITS.index(document.split))
        self._labels.append(-1 if label is None else self._label_codes.setdefault(label, len(self._label_codes)))
        self._groups.append(-1 if group is None else self._group_codes.setdefault(group, len(self._group_codes)))
        self._n_chars.append(len(text))
        self._hashes += text_hash(text)
        self._ranks += hashlib.blake2b(doc_id.encode(), digest_size=8, key=self._key).digest()
        if len(self._columns["text"]) == ROW_GROUP_DOCUMENTS or self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def finish(self) -> Index:
        """Write what is left and return the index."""
        self._flush()
        return Index(
            np.frombuffer(self._splits, np.int8), np.frombuffer(self._labels, np.int32),
            np.frombuffer(self._groups, np.int32), np.frombuffer(self._n_chars, np.int32),
            np.frombuffer(self._hashes, np.uint64), np.frombuffer(self._ranks, np.uint64),
            list(self._label_codes), list(self._group_codes), self._row_groups,
        )

    def _flush(self) -> None:
        n_documents = len(self._columns["text"])
        if n_documents:
            self._writer.write_table(pa.table(self._columns, schema=_SPOOLED), row_group_size=n_documents)
            self._row_groups.append(n_documents)
        self._columns = {name: [] for name in _SPOOLED.names}
        self._bytes = 0


def ids_at(spool: Path, rows: npt.NDArray[np.int64]) -> list[str]:
    """The ids of the documents at `rows` of the spool."""
    found: list[str] = pq.read_table(spool, columns=["doc_id"])["doc_id"].take(pa.array(rows)).to_pylist()
    return found


def write_documents(target: Path, spool: Path, index: Index, final: npt.NDArray[np.int8]) -> None:
    """Write documents.parquet from the spool: by split, inside a split in source order.

    `final` holds each document's position in SPLITS, -1 for one that is dropped.
    """
    starts = np.concatenate(([0], np.cumsum(index.row_groups)))
    with (
        pq.ParquetFile(spool) as file,
        pq.ParquetWriter(
            target, SCHEMA, compression="zstd", compression_level=1, use_dictionary=["split", "label"],
            write_statistics=["doc_id", "split", "label", "n_chars"],
        ) as writer,
    ):
        for split, name in enumerate(SPLITS):
            pieces = _rows_of(file, starts, final == split)
            for table in _rebatch(pieces):
                stopping.check("prepare_corpus")
                column = pa.array([name], pa.string()).take(pa.array(np.zeros(len(table), np.int8)))
                writer.write_table(table.add_column(1, "split", column).cast(SCHEMA), row_group_size=len(table))


def _rows_of(file: Any, starts: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_]) -> Iterator[Any]:
    for number in range(len(starts) - 1):
        mask = wanted[starts[number] : starts[number + 1]]
        if mask.any():
            table = file.read_row_group(number)
            yield table if mask.all() else table.filter(pa.array(mask))


def _rebatch(tables: Iterator[Any]) -> Iterator[Any]:
    """The same rows in tables of full row groups."""
    pending: list[Any] = []
    rows = size = 0
    for table in tables:
        pending.append(table)
        rows, size = rows + len(table), size + table.nbytes
        if rows >= ROW_GROUP_DOCUMENTS or size >= ROW_GROUP_BYTES:
            whole = pa.concat_tables(pending)
            full = min(rows, ROW_GROUP_DOCUMENTS)
            yield whole.slice(0, full)
            rest = whole.slice(full)
            pending, rows, size = ([rest] if len(rest) else []), len(rest), rest.nbytes if len(rest) else 0
    if pending:
        yield pa.concat_tables(pending)
