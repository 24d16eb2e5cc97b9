"""The two passes over a corpus: cleaned documents into temporary files, then by split into the artifact.

Each part of the source becomes a file of its own, so that several jobs can make them. Only a few numbers per document
stay in memory; the text never does.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
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
from pipeline.errors import InputError
from pipeline.provenance import this_process
from pipeline.storage import move_into_place, sync, write_durably

ROW_GROUP_DOCUMENTS = 2_000
ROW_GROUP_CHARS = 32 * 2**20
"""A row group is closed at the first of these two limits, so that a few huge documents do not fill the memory."""
_SPOOLED = pa.schema(
    [("split", pa.int8()), ("label", pa.string()), ("group", pa.string()), ("n_chars", pa.int32()),
     ("text_hash", pa.uint64()), ("rank", pa.uint64()), ("doc_id", pa.string()), ("text", pa.string())]
)
_INDEXED = ("split", "label", "group", "n_chars", "text_hash", "rank")
_STORED = ("doc_id", "label", "group", "n_chars", "text")
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


def text_hash(text: str) -> int:
    """Eight bytes of BLAKE2b over the text in lower case with white space collapsed."""
    return int.from_bytes(hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest(), "little")


class Spool:
    """A temporary Parquet file of cleaned documents: there once it is closed without an error, never in part.

    A record beside it, written last, says what was cleaned and that the file is whole.
    """

    def __init__(self, path: Path, seed: int) -> None:
        process = this_process()  # jobs that make the same file at the same time write the same, each its own
        self._path, self._writer_name = path, f"{process['host']}-{process['pid']}"
        self._half = path.with_name(f"{path.name}.{self._writer_name}")
        self._writer = pq.ParquetWriter(
            self._half, _SPOOLED, compression="lz4", use_dictionary=False, write_statistics=False,
            write_page_checksum=True,
        )
        self._key = seed.to_bytes(8, "little")
        self._columns: dict[str, list[Any]] = {name: [] for name in _SPOOLED.names}
        self._chars = 0
        self.cleaned = Counter[str]()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._writer.close()
            self._half.unlink()
            return
        self._flush()
        self._writer.close()
        sync(self._half)
        move_into_place(self._half, self._path)
        write_durably(_record(self._path), json.dumps(self.cleaned), writer=self._writer_name)

    def add(self, document: RawDocument, text: str) -> None:
        """Append one document with its cleaned text."""
        doc_id = clean_name(document.doc_id)
        label = clean_name(document.label) or None if document.label and document.split != "unlabelled" else None
        group = clean_name(document.group) or None if document.group else None
        rank = hashlib.blake2b(doc_id.encode(), digest_size=8, key=self._key).digest()
        values = (
            SPLITS.index(document.split), label, group, len(text), text_hash(text), int.from_bytes(rank, "little"),
            doc_id, text,
        )
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)
        self._chars += len(text)
        if len(self._columns["text"]) == ROW_GROUP_DOCUMENTS or self._chars >= ROW_GROUP_CHARS:
            self._flush()

    def _flush(self) -> None:
        n_documents = len(self._columns["text"])
        if n_documents:
            self._writer.write_table(pa.table(self._columns, schema=_SPOOLED), row_group_size=n_documents)
        self._columns = {name: [] for name in _SPOOLED.names}
        self._chars = 0


def is_spooled(path: Path) -> bool:
    """Whether the spool `path` is there whole."""
    return _record(path).exists()


def cleaned(spools: Sequence[Path]) -> Counter[str]:
    """What was cleaned in all of them."""
    return sum((Counter(json.loads(_record(path).read_text(encoding="utf-8"))) for path in spools), Counter[str]())


def read_index(spools: Sequence[Path]) -> Index:
    """The index of the documents of `spools`, in their order."""
    labels, groups = _Codes(), _Codes()
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in _INDEXED}
    for table in _row_groups(spools, _INDEXED):
        columns["label"].append(labels.of(table["label"]))
        columns["group"].append(groups.of(table["group"]))
        for name in ("split", "n_chars", "text_hash", "rank"):
            columns[name].append(table[name].to_numpy())

    def whole(name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
        return np.concatenate([np.empty(0, kind), *columns.pop(name)])

    return Index(
        whole("split", np.int8), whole("label", np.int32), whole("group", np.int32), whole("n_chars", np.int32),
        whole("text_hash", np.uint64), whole("rank", np.uint64), list(labels.names), list(groups.names),
    )


def id_at(spools: Sequence[Path], row: int) -> str:
    """The id of the document number `row` of `spools`."""
    for table in _row_groups(spools, ("doc_id",)):
        if row < len(table):
            break
        row -= len(table)
    found: str = table["doc_id"][row].as_py()
    return found


def write_documents(target: Path, spools: Sequence[Path], index: Index, final: npt.NDArray[np.int8]) -> None:
    """Write documents.parquet from the spools: by split, inside a split in source order.

    `final` holds each document's position in SPLITS, -1 for one that is dropped. The row groups depend on the documents
    alone, not on the spools they come from.
    """
    with pq.ParquetWriter(
        target, SCHEMA, compression="zstd", compression_level=1, use_dictionary=["split", "label"],
        write_statistics=["doc_id", "split", "label", "n_chars"],
    ) as writer:
        for split, name in enumerate(SPLITS):
            wanted = final == split
            for table in _regrouped(_row_groups(spools, _STORED, wanted), _sizes(index.n_chars[wanted])):
                stopping.check("prepare_corpus")
                column = pa.array([name], pa.string()).take(pa.array(np.zeros(len(table), np.int8)))
                writer.write_table(table.add_column(1, "split", column).cast(SCHEMA), row_group_size=len(table))


class _Codes:
    """Numbers for names, by first appearance."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def of(self, column: Any) -> npt.NDArray[np.int32]:
        """The number of every value of a column of strings, -1 for a missing one."""
        encoded = column.combine_chunks().dictionary_encode()
        numbers = [self.names.setdefault(name, len(self.names)) for name in encoded.dictionary.to_pylist()]
        places = encoded.indices.fill_null(len(numbers)).to_numpy()
        return np.array([*numbers, -1], np.int32)[places]


def _record(spool: Path) -> Path:
    return spool.with_suffix(".json")


def _row_groups(spools: Sequence[Path], columns: Sequence[str], wanted: Any = None) -> Iterator[Any]:
    """The row groups of all spools as tables; with `wanted`, one truth value a document, its documents only."""
    start = 0
    for path in spools:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for number in range(file.metadata.num_row_groups):
                    end = start + file.metadata.row_group(number).num_rows
                    mask, start = None if wanted is None else wanted[start:end], end
                    if mask is None or mask.any():
                        table = file.read_row_group(number, columns=columns)
                        yield table if mask is None or mask.all() else table.filter(pa.array(mask))
        except pa.ArrowException as error:
            raise _damaged(path) from error
        except OSError as error:
            if error.errno is not None:  # the disk's errors have a number, Arrow's have none
                raise
            raise _damaged(path) from error


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged.", f"Have it made anew: rm {_record(path)}, then give the same command again."
    )


def _sizes(n_chars: npt.NDArray[np.int32]) -> Iterator[int]:
    """Documents in each row group of a split."""
    start = 0
    while start < len(n_chars):
        total = np.cumsum(n_chars[start : start + ROW_GROUP_DOCUMENTS], dtype=np.int64)
        size = min(int(np.searchsorted(total, ROW_GROUP_CHARS)) + 1, len(total))
        yield size
        start += size


def _regrouped(tables: Iterator[Any], sizes: Iterator[int]) -> Iterator[Any]:
    """The same rows in tables of `sizes`."""
    pending: list[Any] = []
    rows = 0
    for size in sizes:
        while rows < size:
            pending.append(next(tables))
            rows += len(pending[-1])
        whole = pa.concat_tables(pending)
        yield whole.slice(0, size)
        pending, rows = [whole.slice(size)], rows - size
