"""The reader of each kind of source."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.corpus.documents import RawDocument
from pipeline.corpus.labelled_lines import read_names, read_sentences
from pipeline.corpus.rotten_tomatoes import read_rotten_tomatoes
from pipeline.corpus.tables import read_table
from pipeline.corpus.texts import read_bow_languages, read_human_numbers, read_plain_text
from pipeline.corpus.trees import read_folder, read_imdb
from pipeline.settings import PrepareCorpusSettings

_GENERATORS = {"human-numbers": read_human_numbers, "bow-languages": read_bow_languages}
_READERS = {
    "imdb": read_imdb, "folder": read_folder, "plain-text": read_plain_text, "rotten-tomatoes": read_rotten_tomatoes,
    "nietzsche": read_plain_text, "sentences": read_sentences, "names": read_names,
}


def read_documents(settings: PrepareCorpusSettings, path: Path | None) -> Iterator[RawDocument]:
    """The documents of the source `path` (None for a generator), one by one, in source order.

    Raises InputError or DataError, naming the file, for a source that is damaged or not of its kind.
    """
    if path is None:
        return _GENERATORS[settings.kind]()
    return read_table(path, settings) if settings.kind == "table" else _READERS[settings.kind](path)
