"""Texts to be predicted, one by one and in order: arguments, lines, or the rows of a table."""

import hashlib
import os
import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.corpus.cleaning import clean_name
from pipeline.corpus.documents import MAX_DOCUMENT_BYTES, RawDocument
from pipeline.corpus.tables import read_table
from pipeline.errors import DataError, InputError
from pipeline.settings import PrepareCorpusSettings

BLOCK_DOCUMENTS = 1024
"""Texts that are sorted by length together, and written together: what a kill can lose."""
BLOCK_BYTES = 16 * 2**20
PAUSE_S = 0.2
"""A pipe that brought nothing for so long pauses: what has come is predicted."""
ID_COLUMN, TEXT_COLUMN = "id", "text"


class InputText(NamedTuple):
    """A text and its name; `text` is cleaned later."""

    id: str
    text: bytes | str


def from_arguments(texts: Sequence[str]) -> Iterator[InputText]:
    """Texts of a command line, numbered from 0."""
    return (InputText(str(number), text) for number, text in enumerate(texts))


def from_lines(stream: BinaryIO, name: str) -> Iterator[InputText]:
    """One text a line, numbered from 0; an empty line is an empty text.

    Raises InputError for a line of more than MAX_DOCUMENT_BYTES.
    """
    number = 0
    while line := stream.readline(MAX_DOCUMENT_BYTES + 1):
        yield _of_line(number, line.removesuffix(b"\n"), name)
        number += 1


def from_pipe(
    descriptor: int, name: str, while_waiting: Callable[[], None]
) -> Iterator[InputText | None]:
    """As `from_lines`, of a file that may still be written to: None in every pause, after `while_waiting`."""
    number, parts, size = 0, list[bytes](), 0
    while True:
        if not select.select([descriptor], [], [], PAUSE_S)[0]:
            while_waiting()
            yield None
            continue
        data = os.read(descriptor, 2**20)
        *ends, begin = data.split(b"\n")
        for end in ends:
            yield _of_line(number, b"".join([*parts, end]), name)
            number, parts, size = number + 1, [], 0
        parts.append(begin)
        size += len(begin)
        if not data or size > MAX_DOCUMENT_BYTES:
            if size:
                yield _of_line(number, b"".join(parts), name)
            return


def _of_line(number: int, line: bytes, name: str) -> InputText:
    """The text of a line without its end; InputError if it is too long."""
    if len(line) > MAX_DOCUMENT_BYTES:
        raise InputError(
            f"Line {number + 1} of {name} has over {MAX_DOCUMENT_BYTES:,} bytes, the most a document may have.",
            "Cut it into several lines.",
        )
    return InputText(str(number), line.removesuffix(b"\r"))


def from_file(path: Path, id_column: str | None, text_column: str) -> Iterator[InputText]:
    """The lines of a .txt file, or the rows of a .csv, .jsonl or .parquet file.

    `id_column` None: what stands in the column `id`, if there is one, else the row number, counted from 0. Raises
    InputError for a file that is not there or not of its kind, DataError for a column it does not have and for a row
    without an id in the column that was named.
    """
    if not path.is_file():
        raise InputError(f"{path} is {'not a file' if path.exists() else 'not there'}.", "Correct --input.")
    if path.suffix.lower() == ".txt":
        with path.open("rb") as stream:
            yield from from_lines(stream, str(path))
        return
    try:
        for document in _rows(path, id_column, text_column):
            yield InputText(clean_name(document.doc_id), document.text)
    except DataError as error:
        if "prepare_corpus." not in error.mend:
            raise
        option = "--text-column" if id_column is None or repr(id_column) not in error.what else "--id-column"
        raise DataError(error.what, f"Name the right one with {option}.") from error


def _rows(path: Path, id_column: str | None, text_column: str) -> Iterator[RawDocument]:
    def rows(column: str | None) -> Iterator[RawDocument]:
        settings = PrepareCorpusSettings(text_column=text_column, label_column=None, id_column=column)
        return read_table(path, settings, ids_may_lack=id_column is None)

    if id_column is not None:
        return rows(id_column)
    named = rows(ID_COLUMN)
    try:
        first = next(named, None)
    except DataError as error:
        if f"no column {ID_COLUMN!r}" not in error.what:
            raise
        return rows(None)
    return chain([first] if first is not None else [], named)


def blocks(texts: Iterable[InputText | None]) -> Iterator[list[InputText]]:
    """Texts in blocks of BLOCK_DOCUMENTS, or fewer long ones; a None, for a pause, ends a block too.

    The same texts without pauses are cut the same way.
    """
    block: list[InputText] = []
    size = 0
    for text in texts:
        full = text is None or len(block) == BLOCK_DOCUMENTS or size + len(text.text) > BLOCK_BYTES
        if block and full:
            yield block
            block, size = [], 0
        if text is not None:
            block.append(text)
            size += len(text.text)
    if block:
        yield block


def digest(before: bytes, block: list[InputText]) -> bytes:
    """SHA-256 of a block and, by the digest of the one before, of all that precede it."""
    state = hashlib.sha256(before)
    for name, text in block:
        for part in (name, text):
            data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
            state.update(f"{type(part).__name__} {len(data)} ".encode())
            state.update(data)
    return state.digest()
