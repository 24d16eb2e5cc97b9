"""Reading a sealed corpus; how it is written is in `pipeline.corpus.spool`."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.artifact import Artifact
from pipeline.corpus.documents import SPLITS

DOCUMENTS = "documents.parquet"
LABELS = "labels.json"


def iter_documents(corpus: Artifact, columns: list[str]) -> Iterator[Any]:
    """Record batches (pyarrow.RecordBatch) of `columns`, in corpus order; never more than one row group in memory."""
    with pq.ParquetFile(corpus.file(DOCUMENTS)) as file:
        for number in range(file.num_row_groups):
            yield from file.read_row_group(number, columns=columns).combine_chunks().to_batches()


def read_columns(corpus: Artifact, columns: list[str], splits: Sequence[str] | None = None) -> Any:
    """`columns` of all documents, or of those of `splits`, as one pyarrow.Table in corpus order."""
    if splits is None:
        return pq.read_table(corpus.file(DOCUMENTS), columns=columns)
    unknown = set(splits) - set(SPLITS)
    if unknown:
        raise ValueError(f"no such split: {sorted(unknown)}")
    return pq.read_table(corpus.file(DOCUMENTS), columns=columns, filters=pc.field("split").isin(list(splits)))


def read_labels(corpus: Artifact) -> list[str]:
    """The sorted labels of train; empty for a corpus without labels."""
    labels: list[str] = json.loads(corpus.file(LABELS).read_text(encoding="utf-8"))
    return labels
