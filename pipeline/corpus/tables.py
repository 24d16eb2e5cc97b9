"""Readers for tables: CSV, JSON lines and Parquet, streamed row by row."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpus.documents import SPLIT_NAMES, RawDocument
from pipeline.errors import DataError, InputError
from pipeline.settings import PrepareCorpusSettings

Row = tuple[Any, ...]
_PARQUET_BATCH_ROWS = 500


def read_table(path: Path, settings: PrepareCorpusSettings) -> Iterator[RawDocument]:
    """The rows of a .csv, .jsonl or .parquet file as documents; the columns are named in `settings`.

    The id is the row number, counted from 0, unless `id_column` is set. Raises InputError for a file that is not such
    a table, DataError for a column it does not have and for an unknown split.
    """
    rows_of: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
        ".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows
    }
    suffix = path.suffix.lower()
    if suffix not in rows_of or path.is_dir():
        raise InputError(f"{path} is not a table that can be read.", f"Tables end in {', '.join(rows_of)}.")
    named = {
        "text": settings.text_column, "label": settings.label_column, "split": settings.split_column,
        "id": settings.id_column, "group": settings.group_column,
    }
    columns = {use: name for use, name in named.items() if name is not None}
    for number, values in enumerate(rows_of[suffix](path, list(columns.values()))):
        row = dict(zip(columns, values, strict=True))
        where = f"row {number} of {path}"
        yield RawDocument(
            doc_id=_required(row["id"], settings.id_column, where) if "id" in row else str(number),
            split=_split(row["split"], where) if "split" in row else "train",
            label=_as_text(row.get("label"), where),
            group=_as_text(row.get("group"), where),
            text=row["text"] if isinstance(row["text"], str | bytes) else _as_text(row["text"], where) or "",
        )


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses a document of 131,073 characters
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            header = next(reader, [])
            places = [_place(header, column, path) for column in columns]
            for row in reader:
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


def _jsonl_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    first = True
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig", "surrogateescape"))
            except ValueError as error:
                raise DataError(f"{path} is not valid JSON in line {number}: {error}.") from error
            if not isinstance(value, dict):
                raise DataError(f"{path} holds no JSON object in line {number}.", 'Expected {"text": ..., ...}.')
            if first:
                for column in columns:
                    _place(list(value), column, path)
                first = False
            yield tuple(_undo_escapes(value.get(column)) for column in columns)


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
            wanted = list(dict.fromkeys(columns))
            for batch in file.iter_batches(_PARQUET_BATCH_ROWS, columns=wanted):
                values = {name: batch.column(name).to_pylist() for name in wanted}
                yield from zip(*(values[column] for column in columns), strict=True)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is truncated or not a Parquet file: {str(error).rstrip('.')}.") from error


def _place(header: Sequence[str], column: str, path: Path) -> int:
    if column not in header:
        raise DataError(
            f"{path} has no column {column!r}; its columns are {', '.join(header) or 'none'}.",
            "Name the right one with --set prepare_corpus.text_column=... (or label_column, split_column, id_column, "
            "group_column).",
        )
    return header.index(column)


def _split(value: Any, where: str) -> str:
    name = _as_text(value, where)
    split = SPLIT_NAMES.get(name.lower()) if name else None
    if split is None:
        raise DataError(
            f"{where} has the unknown split {name or ''!r}.", "Splits are train, valid, test and unlabelled."
        )
    return split


def _required(value: Any, column: str | None, where: str) -> str:
    text = _as_text(value, where)
    if text is None:
        raise DataError(
            f"{where} has no id in column {column!r}.", "Unset prepare_corpus.id_column to use row numbers."
        )
    return text


def _as_text(value: Any, where: str) -> str | None:
    """A cell as text; None for a missing one (null, a NaN number, empty or blank text)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        raise DataError(f"{where} holds a list or an object where text is expected.")
    return str(value).strip() or None
