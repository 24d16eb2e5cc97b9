"""The reader of each kind of source."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from pipeline.corpus.documents import RawDocument
from pipeline.corpus.labelled_lines import read_names, read_sentences
from pipeline.corpus.rotten_tomatoes import read_rotten_tomatoes
from pipeline.corpus.tables import read_table, tables_of
from pipeline.corpus.texts import read_bow_languages, read_human_numbers, read_plain_text
from pipeline.corpus.trees import read_folder, read_imdb
from pipeline.settings import PrepareCorpusSettings

_GENERATORS = {"human-numbers": read_human_numbers, "bow-languages": read_bow_languages}
_READERS = {
    "imdb": read_imdb, "folder": read_folder, "plain-text": read_plain_text, "rotten-tomatoes": read_rotten_tomatoes,
    "nietzsche": read_plain_text, "sentences": read_sentences, "names": read_names,
}
Part = Callable[[], Iterator[RawDocument]]
"""Reads the documents of a part of a source, one by one, in source order.

Raises InputError or DataError, naming the file, for a source that is damaged or not of its kind.
"""


def parts_of(settings: PrepareCorpusSettings, path: Path | None) -> Sequence[Part]:
    """The parts of the source `path` (None for a generator) in their order: of a folder of tables each table, of
    anything else the whole.

    Raises InputError for a folder that should hold tables and does not, DataError if their names may tell splits.
    """
    if path is None:
        return [_GENERATORS[settings.kind]]
    if settings.kind != "table":
        return [partial(_READERS[settings.kind], path)]
    return [partial(read_table, table.path, settings, table.prefix, table.split) for table in tables_of(path, settings)]
