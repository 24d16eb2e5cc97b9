"""Predictions as JSON lines, CSV or Parquet, made block by block."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Spreadsheets run a cell that starts with one of these as a formula."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass(frozen=True)
class Predictions:
    """Of a block of N texts: their ids, and probabilities [N, C] with the columns of `labels`."""

    ids: Sequence[str]
    labels: Sequence[str]
    probabilities: NDArray[np.float64]

    @property
    def predicted(self) -> list[str]:
        """The most probable label of each text; the first of equals."""
        return [self.labels[i] for i in self.probabilities.argmax(axis=1)]


class Format(Protocol):
    """One way to write rows: predictions here, vectors elsewhere."""

    def block(self, rows: Any, /) -> bytes:
        """What the rows of a block become until all blocks are joined."""
        ...

    def join(self, blocks: Iterable[bytes], stream: BinaryIO) -> None:
        """Write the whole file from its blocks."""
        ...


class JsonLines:
    """`{"id": ..., "label": ..., "probabilities": {label: ...}}`, one object a line."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    def block(self, predictions: Predictions) -> bytes:
        """Its lines."""
        rows = zip(predictions.ids, predictions.predicted, predictions.probabilities.tolist(), strict=True)
        return b"".join(self._line(name, label, values) for name, label, values in rows)

    def _line(self, name: str, label: str, values: Sequence[float]) -> bytes:
        probabilities = dict(zip(self._labels, map(rounded, values), strict=True))
        row = {"id": name, "label": label, "probabilities": probabilities}
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"

    def join(self, blocks: Iterable[bytes], stream: BinaryIO) -> None:
        """One after the other."""
        for block in blocks:
            stream.write(block)


class Csv:
    """Columns id, label and probability_<label>; text that a spreadsheet would run gets a leading apostrophe."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    def block(self, predictions: Predictions) -> bytes:
        """Its rows."""
        rows = zip(predictions.ids, predictions.predicted, predictions.probabilities.tolist(), strict=True)
        return _csv([escaped(name), escaped(label), *map(rounded, values)] for name, label, values in rows)

    def join(self, blocks: Iterable[bytes], stream: BinaryIO) -> None:
        """The header, then one after the other."""
        stream.write(_csv([["id", "label", *(f"probability_{label}" for label in self._labels)]]))
        for block in blocks:
            stream.write(block)


class Parquet:
    """Columns id, label and probability_<label> (float32); a row group for each block."""

    def __init__(self, labels: Sequence[str]) -> None:
        fields = [("id", pa.string()), ("label", pa.string())]
        self._schema = pa.schema([*fields, *((f"probability_{label}", pa.float32()) for label in labels)])

    def block(self, predictions: Predictions) -> bytes:
        """A Parquet file of its own."""
        columns: list[Any] = [predictions.ids, predictions.predicted, *predictions.probabilities.T.astype(np.float32)]
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, self._schema, strict=True)], self._schema)
        written = io.BytesIO()
        pq.write_table(table, written)
        return written.getvalue()

    def join(self, blocks: Iterable[bytes], stream: BinaryIO) -> None:
        """All tables in one file."""
        with pq.ParquetWriter(stream, self._schema) as writer:
            for block in blocks:
                writer.write_table(pq.read_table(pa.BufferReader(block)))


FORMATS: dict[str, Callable[[Sequence[str]], Format]] = {".jsonl": JsonLines, ".csv": Csv, ".parquet": Parquet}
"""Of predictions; each is made from their labels."""


def rounded(probability: float) -> float:
    """Seven digits, all that float32 has."""
    return float(f"{probability:.7g}")


def escaped(cell: str) -> str:
    """`cell` as text that no spreadsheet takes for a formula (OWASP: CSV injection); numbers are none."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(cell) else cell


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue().encode()
