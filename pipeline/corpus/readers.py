"""The reader of each kind of source."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.corpus.documents import RawDocument
from pipeline.corpus.rotten_tomatoes import read_rotten_tomatoes
from pipeline.corpus.tables import read_table
from pipeline.corpus.texts import read_human_numbers, read_plain_text
from pipeline.corpus.trees import read_folder, read_imdb
from pipeline.settings import PrepareCorpusSettings


def read_documents(settings: PrepareCorpusSettings, path: Path | None) -> Iterator[RawDocument]:
    """The documents of the source `path` (None for a generator), one by one, in source order.

    Raises InputError or DataError, naming the file, for a source that is damaged or not of its kind.
    """
    if path is None:
        return read_human_numbers()
    match settings.kind:
        case "imdb":
            return read_imdb(path)
        case "folder":
            return read_folder(path)
        case "table":
            return read_table(path, settings)
        case "plain-text":
            return read_plain_text(path)
        case _:
            return read_rotten_tomatoes(path)
