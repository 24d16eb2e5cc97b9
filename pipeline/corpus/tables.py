"""Readers for tables: CSV, JSON lines and Parquet, streamed row by row."""

import csv
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePath
from typing import IO, Any, AnyStr, Generic, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpus.archive import MAX_RATIO, RATIO_FREE_BYTES
from pipeline.corpus.documents import MAX_DOCUMENT_BYTES, SPLIT_NAMES, RawDocument
from pipeline.corpus.parquet_pages import largest_pages
from pipeline.corpus.trees import list_folder
from pipeline.errors import DataError, InputError
from pipeline.settings import PrepareCorpusSettings

Row = tuple[Any, ...]
_PARQUET_BATCH_ROWS = 500
_PARQUET_BATCH_BYTES = MAX_DOCUMENT_BYTES
"""The most that the values of a batch can take, whatever the file repeats."""
_SHOWN_COLUMNS = 20
_LINES_TO_SHOW_A_COLUMN = 1_000
"""JSON lines often leave out what is null: a column is missing if none of the first so many has it."""


class NamedTable(NamedTuple):
    """A table of a source."""

    path: Path
    prefix: str
    """What its row numbers follow; empty for a source of one table."""
    split: str
    """Of its rows, where no column says: train, or what its name says."""


def tables_of(path: Path, settings: PrepareCorpusSettings) -> list[NamedTable]:
    """The tables below the folder `path` by name, or the one that `path` is.

    Raises InputError for a folder without one, and for a link, pipe or device that is called like one; DataError where
    names of tables tell splits and neither `split_column` nor `splits_from_names` says whether they are meant, and for
    a table whose name tells none where they are.
    """
    if not path.is_dir():
        return [NamedTable(path, "", "train")]
    tables = list(list_folder(path, lambda name: name if _is_table(name) else None))
    if not tables:
        raise InputError(f"{path} holds no table.", f"Tables end in {', '.join(_ROWS_OF)}.")
    splits = {name: _split_in(name) for name, _ in tables} if settings.split_column is None else {}
    told = [name for name, split in splits.items() if split not in (None, "train")]
    if not told or settings.splits_from_names is False:
        return [NamedTable(table, f"{name}:", "train") for name, table in tables]
    if settings.splits_from_names is None:
        raise DataError(
            f"{path} holds {told[0]}, a split by its name, and no column is named that holds the splits.",
            "Keep such tables apart with --set prepare_corpus.splits_from_names=true; false puts all together and "
            "splits them anew.",
        )
    for name, split in splits.items():
        if split is None:
            raise DataError(
                f"{path} holds {name}, whose name tells no split, beside {told[0]}.",
                "Rename it, or use --set prepare_corpus.splits_from_names=false.",
            )
    return [NamedTable(table, f"{name}:", splits[name] or "train") for name, table in tables]


def _split_in(name: str) -> str | None:
    """The split that the name of a table tells, as test.csv, train-00000-of-00002.parquet or valid/a.jsonl."""
    parts = [PurePath(name).parts[0], re.split(r"[-._]", PurePath(name).name)[0]]
    return next((SPLIT_NAMES[part.lower()] for part in parts if part.lower() in SPLIT_NAMES), None)


def read_table(
    path: Path, settings: PrepareCorpusSettings, prefix: str = "", split: str = "train", *, ids_may_lack: bool = False
) -> Iterator[RawDocument]:
    """The rows of a .csv, .jsonl or .parquet file as documents; the columns are named in `settings`.

    The id is `prefix` and the row number, counted from 0, unless `id_column` is set; with `ids_may_lack` so is that of
    a row whose id is empty, which is a DataError otherwise. `split` is that of all rows unless `split_column` is set.
    Raises InputError for a file that is not such a table and for a document or row of more than MAX_DOCUMENT_BYTES,
    DataError for a column it does not have or has twice, for a list or an object in place of text, for a name that is
    not UTF-8, and for an unknown split.
    """
    suffix = path.suffix.lower()
    if suffix not in _ROWS_OF or path.is_dir():
        raise InputError(f"{path} is not a table that can be read.", f"Tables end in {', '.join(_ROWS_OF)}.")
    named = {
        "text": settings.text_column, "label": settings.label_column, "split": settings.split_column,
        "id": settings.id_column, "group": settings.group_column,
    }
    columns = {use: name for use, name in named.items() if name is not None}
    wanted = list(columns.values())
    if suffix == ".jsonl":
        may_lack = {columns["id"]} if ids_may_lack and "id" in columns else set()
        rows = _jsonl_rows(path, wanted, settings.text_column, may_lack)
    else:
        rows = _ROWS_OF[suffix](path, wanted)
    for number, values in enumerate(rows):
        row = dict(zip(columns, values, strict=True))
        where = f"row {number} of {path}"
        if any(isinstance(value, str | bytes) and len(value) > MAX_DOCUMENT_BYTES for value in values):
            raise InputError(
                f"{where} holds a text of more than {MAX_DOCUMENT_BYTES:,} bytes, the most a document may have.",
                "Cut it into several documents.",
            )
        doc_id = _as_text(row.get("id"), where)
        if doc_id is None and "id" in row and not ids_may_lack:
            raise DataError(
                f"{where} has no id in column {settings.id_column!r}.",
                "Unset prepare_corpus.id_column to use row numbers.",
            )
        yield RawDocument(
            doc_id=doc_id or f"{prefix}{number}",
            split=_split(row["split"], where) if "split" in row else split,
            label=_as_text(row.get("label"), where),
            group=_as_text(row.get("group"), where),
            text=row["text"] if isinstance(row["text"], str | bytes) else _as_text(row["text"], where) or "",
        )


def _is_table(name: str) -> bool:
    file = PurePath(name)
    return file.suffix.lower() in _ROWS_OF and not file.name.startswith(".")


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(MAX_DOCUMENT_BYTES)  # the default refuses a document of 131,073 characters
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        lines = _Lines(stream, path)
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, [])
            places = [_place(header, column, path) for column in columns]
            for row in reader:
                lines.row_ends()
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path} has {len(row)} fields in line {reader.line_num}, but {len(header)} columns.",
                        "Check the quotes of that line.",
                    )
                # Back to bytes, so that invalid UTF-8 is mended and counted where it is for all sources.
                yield tuple(row[place].encode("utf-8", "surrogateescape") for place in places)
        except csv.Error as error:
            raise DataError(f"{path} is not valid CSV in line {reader.line_num}: {error}.") from error


def _jsonl_rows(path: Path, columns: Sequence[str], text: str = "", may_lack: Collection[str] = ()) -> Iterator[Row]:
    """Column `text` must be in every row, the others but those that `may_lack` somewhere among the first rows."""
    seen: dict[str, None] = {}
    n_rows = 0
    with path.open("rb") as stream:
        lines = _Lines(stream, path)
        for number, line in enumerate(lines, 1):
            lines.row_ends()
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig", "surrogateescape"))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path} is not valid JSON in line {number}: {error}.") from error
            if not isinstance(value, dict):
                raise DataError(f"{path} holds no JSON object in line {number}.", 'Expected {"text": ..., ...}.')
            n_rows += 1
            if n_rows <= _LINES_TO_SHOW_A_COLUMN:
                seen |= dict.fromkeys(value)
            if text and text not in value:
                _place(list(seen), text, path)
                raise DataError(f"{path} has no {text!r} in line {number}.", "Write null where there is no text.")
            if n_rows == _LINES_TO_SHOW_A_COLUMN:
                _check_columns(seen, columns, may_lack, path)
            yield tuple(_undo_escapes(value.get(column)) for column in columns)
    if 0 < n_rows < _LINES_TO_SHOW_A_COLUMN:
        _check_columns(seen, columns, may_lack, path)


def _check_columns(seen: Collection[str], columns: Sequence[str], may_lack: Collection[str], path: Path) -> None:
    for column in columns:
        if column not in may_lack:
            _place(list(seen), column, path)


class _Lines(Generic[AnyStr]):
    """The lines of a stream; a row, of however many lines, may not be longer than the longest document.

    A missing quote or line end would otherwise take the whole file into memory.
    """

    def __init__(self, stream: IO[AnyStr], path: Path) -> None:
        self._stream: IO[AnyStr] = stream
        self._path = path
        self._number = self._taken = 0

    def row_ends(self) -> None:
        """The lines given so far have become a row."""
        self._taken = 0

    def __iter__(self) -> Iterator[AnyStr]:
        while line := self._stream.readline(MAX_DOCUMENT_BYTES + 1):
            self._number += 1
            self._taken += len(line)
            if self._taken > MAX_DOCUMENT_BYTES:
                raise InputError(
                    f"{self._path} has a row of more than {MAX_DOCUMENT_BYTES:,} characters that reaches line "
                    f"{self._number}.",
                    "Check its quotes and line ends, or cut the document into several.",
                )
            yield line


def _undo_escapes(value: Any) -> Any:
    """Text whose bytes were not UTF-8 becomes bytes again, so that it is counted as such; all else stays."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            try:
                return value.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                return value  # a lone surrogate written as \ud800
    return value


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            for column in columns:
                _place(file.schema_arrow.names, column, path)
                if pa.types.is_nested(file.schema_arrow.field(column).type):
                    raise DataError(f"{path} holds lists or objects in column {column!r} where text is expected.")
            wanted = list(dict.fromkeys(columns))
            leaves = [file.schema.column(i).path for i in range(len(file.schema))]
            read = 0
            for group, largest in enumerate(largest_pages(path, [leaves.index(column) for column in wanted])):
                # No value is larger than its page, so this many rows are never more than the budget.
                n_rows = max(1, min(_PARQUET_BATCH_ROWS, _PARQUET_BATCH_BYTES // max(largest, 1)))
                for batch in file.iter_batches(n_rows, row_groups=[group], columns=wanted):
                    values = {name: _cells(batch.column(name)) for name in wanted}
                    read += sum(len(cell) for cells in values.values() for cell in cells if isinstance(cell, bytes))
                    _check_ratio(path, read)
                    yield from zip(*(values[column] for column in columns), strict=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's errors have a number, Arrow's have none
            raise
        said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise InputError(
            f"{path} is truncated or not a Parquet file: {said}.", "Make it again, or give another --source."
        ) from error


_ROWS_OF: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows
}


def _check_ratio(path: Path, read: int) -> None:
    """A file of few bytes may repeat a text without end."""
    if read > RATIO_FREE_BYTES and read > MAX_RATIO * path.stat().st_size:
        raise InputError(
            f"{path} holds more than {MAX_RATIO} times its size in text: {read:,} bytes so far.",
            "It looks like a decompression bomb. If it is yours, write it as .csv or .jsonl.",
        )


def _cells(column: Any) -> list[Any]:
    """The values of a column. Text comes as bytes: a file may hold text that is not UTF-8, and cleaning counts it."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if any(is_text(column.type) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        column = column.cast(pa.large_binary())
    cells: list[Any] = column.to_pylist()
    return cells


def _place(header: Sequence[str], column: str, path: Path) -> int:
    if column not in header:
        raise DataError(
            f"{path} has no column {column!r}; its columns are {_shown(header)}.",
            "Name the right one with --set prepare_corpus.text_column=... (or label_column, split_column, id_column, "
            "group_column).",
        )
    if header.count(column) > 1:
        raise DataError(
            f"{path} has {header.count(column):,} columns called {column!r}.", "Rename or take out all but one of them."
        )
    return header.index(column)


def _shown(header: Sequence[str]) -> str:
    """Column names for a message: without control characters, and not too many."""
    names = [name if name.isprintable() and len(name) <= 80 else repr(name[:80]) for name in header[:_SHOWN_COLUMNS]]
    more = len(header) - len(names)
    return (", ".join(names) or "none") + (f" and {more:,} more" if more else "")


def _split(value: Any, where: str) -> str:
    name = _as_text(value, where)
    split = SPLIT_NAMES.get(name.lower()) if name else None
    if split is None:
        raise DataError(
            f"{where} has the unknown split {(name or '')[:80]!r}.", "Splits are train, valid, test and unlabelled."
        )
    return split


def _as_text(value: Any, where: str) -> str | None:
    """A cell as text; None for a missing one (null, a NaN number, empty or blank text)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            shown = value[:40].decode("utf-8", errors="replace")
            raise DataError(f"{where} has {shown!r}, which is not UTF-8.", "Save the file as UTF-8.") from None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # tables write whole numbers as 1.0 where a row of the column has none
    if isinstance(value, dict | list):
        raise DataError(f"{where} holds a list or an object where text is expected.")
    return str(value).strip() or None
