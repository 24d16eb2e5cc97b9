"""The documents a classifier is scored on, joined from corpus and ids, and the proof that they belong together."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.artifact import Artifact
from pipeline.corpus.store import read_columns
from pipeline.errors import DataError, InputError
from pipeline.text.ids import IdStore


@dataclass(frozen=True)
class LabelledDocuments:
    """Documents of one split that have a label, N of them, in the order of the ids."""

    indices: npt.NDArray[np.int64]
    """Positions in the ids [N]."""
    doc_ids: list[str]
    label_ids: npt.NDArray[np.int64]
    """Positions in labels.json [N]."""
    texts: list[str]
    n_unlabelled: int
    """Documents of the split without a label, which were left out."""


def check_same_labels(ids: Artifact, classifier: Artifact) -> list[str]:
    """The labels that ids and classifier share, in order.

    Raises InputError if the classifier was trained with another list of labels.
    """
    labels, known = _labels(ids), _labels(classifier)
    if labels != known:
        raise InputError(
            f"{classifier.path} and {ids.path} have other labels: {first_difference(known, labels)}.",
            "Train a classifier on these ids (python -m pipeline train_classifier), or correct [inputs].",
        )
    return labels


def load_labelled(
    corpus: Artifact, store: IdStore, split: str, only: npt.NDArray[np.int64] | None = None
) -> LabelledDocuments:
    """The labelled documents of `split`, or those with the numbers `only`: ids and text of the same doc_id.

    Raises InputError if corpus and ids do not list the same documents with the same labels in the same order, and
    DataError for a label that train does not have.
    """
    table = read_columns(corpus, ["doc_id", "label", "text"], splits=[split])
    doc_ids, labels = table["doc_id"].to_pylist(), table["label"].to_pylist()
    indices = np.asarray(store.documents(split), dtype=np.int64)
    label_ids = np.asarray(store.label_ids, dtype=np.int64)[indices]
    doc_ids_of_ids = [store.doc_ids[i] for i in indices]
    mend = "Make the ids again from this corpus (python -m pipeline run), or correct [inputs]."
    if doc_ids != doc_ids_of_ids:
        raise InputError(
            f"Corpus {corpus.path} and the ids list other documents of {split}: "
            f"{first_difference(doc_ids, doc_ids_of_ids)}.",
            mend,
        )
    known = set(store.labels)
    for doc_id, label, label_id in zip(doc_ids, labels, label_ids, strict=True):
        if label is not None and label not in known:
            raise DataError(
                f"Document {doc_id} of {split} has the label {label!r}, which no document of train has.",
                "Add such documents to train or remove the label, then prepare the corpus again.",
            )
        of_ids = store.labels[label_id] if label_id >= 0 else None
        if label != of_ids:
            raise InputError(
                f"Document {doc_id} has the label {label!r} in {corpus.path} and {of_ids!r} in the ids.", mend
            )
    labelled = np.flatnonzero((label_ids >= 0) if only is None else np.isin(indices, only))
    texts = table["text"]
    return LabelledDocuments(
        indices=indices[labelled],
        doc_ids=[doc_ids[i] for i in labelled],
        label_ids=label_ids[labelled],
        texts=texts.take(labelled).to_pylist(),
        n_unlabelled=int(np.count_nonzero(label_ids < 0)),
    )


def _labels(artifact: Artifact) -> list[str]:
    labels: list[str] = json.loads(artifact.file("labels.json").read_text(encoding="utf-8"))
    return labels


def first_difference(left: list[Any], right: list[Any]) -> str:
    """Where two unequal lists part."""
    for position, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return f"number {position + 1} is {one!r} in the one, {other!r} in the other"
    return f"{len(left):,} in the one, {len(right):,} in the other"
