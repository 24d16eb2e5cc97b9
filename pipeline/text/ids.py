"""Reading an ids artifact: documents as memory-mapped ids."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline.artifact import Artifact
from pipeline.corpus.documents import SPLITS
from pipeline.errors import InputError, UsageError
from pipeline.text.vocabulary import read_vocabulary

_BLOCK_TOKENS = 4_000_000


@dataclass(frozen=True)
class IdStore:
    """All documents of an ids artifact; D documents, N tokens.

    `ids` [N] uint16 or uint32, memory-mapped; `offsets` [D+1] int64: document i is ids[offsets[i]:offsets[i+1]];
    `splits` [D] str; `label_ids` [D] int32, positions in `labels`, -1 for none; `n_chars` [D] int32;
    `vocabulary`: token of each id.
    """

    path: Path
    ids: npt.NDArray[np.unsignedinteger]
    offsets: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    label_ids: npt.NDArray[np.int32]
    n_chars: npt.NDArray[np.int32]
    vocabulary: list[str]
    labels: list[str]

    @classmethod
    def open(cls, artifact: Artifact) -> "IdStore":
        """The store in `artifact`. Raises InputError if that is of another kind or its parts do not fit together."""
        if artifact.manifest.slot != "ids":
            raise InputError(f"{artifact.path} holds {artifact.manifest.slot}, not ids.")
        columns = ["split", "label_id", "n_chars"]
        documents = pq.read_table(artifact.file("documents.parquet"), columns=columns)
        vocabulary = read_vocabulary(artifact.path)
        offsets = np.load(artifact.file("offsets.npy"), allow_pickle=False)
        dtype = "<u2" if len(vocabulary) <= 65_536 else "<u4"
        ids = np.memmap(artifact.file("ids.bin"), dtype=dtype, mode="r")
        if len(offsets) != documents.num_rows + 1 or offsets[-1] != len(ids):
            raise InputError(
                f"{artifact.path}: documents.parquet, offsets.npy and ids.bin do not fit together.",
                "Run numericalize_corpus again with --force.",
            )
        return cls(
            path=artifact.path, ids=ids, offsets=offsets,
            splits=np.array(documents["split"].to_pylist(), dtype=np.str_),
            label_ids=documents["label_id"].to_numpy(), n_chars=documents["n_chars"].to_numpy(), vocabulary=vocabulary,
            labels=json.loads(artifact.file("labels.json").read_text(encoding="utf-8")),
        )

    def __len__(self) -> int:
        return len(self.splits)

    @cached_property
    def doc_ids(self) -> npt.NDArray[np.object_]:
        """Name of each document, read on first use."""
        column = pq.read_table(self.path / "documents.parquet", columns=["doc_id"])["doc_id"]
        return np.array(column.to_pylist(), dtype=np.object_)

    @cached_property
    def n_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of each document."""
        return np.diff(self.offsets)

    def documents(self, *splits: str) -> npt.NDArray[np.int64]:
        """Numbers of the documents in any of `splits`, in corpus order."""
        unknown = set(splits) - set(SPLITS)
        if unknown:
            raise UsageError(f"There is no split {min(unknown)!r}.", f"Splits: {', '.join(SPLITS)}.")
        return np.flatnonzero(np.isin(self.splits, splits))

    def counts(self, documents: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How often each token of the vocabulary stands in `documents`, whose numbers rise; read in blocks."""
        total = np.zeros(len(self.vocabulary), dtype=np.int64)
        for run in np.split(documents, np.flatnonzero(np.diff(documents) != 1) + 1):
            if len(run):
                stop = int(self.offsets[run[-1] + 1])
                for at in range(int(self.offsets[run[0]]), stop, _BLOCK_TOKENS):
                    block = self.ids[at : min(at + _BLOCK_TOKENS, stop)]
                    total += np.bincount(block, minlength=len(total))
        return total

    def document(self, number: int) -> npt.NDArray[np.unsignedinteger]:
        """Ids of document `number`: a view, nothing is copied."""
        return self.ids[self.offsets[number] : self.offsets[number + 1]]
