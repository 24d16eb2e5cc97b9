"""The members of an ensemble: what sealed evaluations hold, and the proof that they scored the same documents."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifact import Artifact
from pipeline.errors import InputError
from pipeline.report.documents import first_difference


@dataclass(frozen=True)
class Member:
    """One evaluated classifier; N test documents, C labels."""

    name: str
    path: Path
    fingerprint: str
    corpus: str
    """Fingerprint of the corpus whose test split was scored."""
    metrics: dict[str, Any]
    """Content of its metrics.json."""
    doc_ids: list[str]
    label_ids: npt.NDArray[np.int64]
    """True classes [N], positions in `labels`."""
    probabilities: npt.NDArray[np.float64]
    """[N, C]"""
    baseline_ids: npt.NDArray[np.int64] | None
    """Classes [N] that the baseline predicted; None if the evaluation had none."""

    @property
    def labels(self) -> list[str]:
        """Label of each class, in order."""
        return list(self.metrics["labels"])

    @property
    def predicted_ids(self) -> npt.NDArray[np.int64]:
        """Predicted classes [N]."""
        return self.probabilities.argmax(axis=1)

    @property
    def baseline_correct(self) -> npt.NDArray[np.bool_] | None:
        """Which documents [N] the baseline gets right; None if the evaluation had none."""
        return None if self.baseline_ids is None else self.baseline_ids == self.label_ids


def load_member(name: str, evaluation: Artifact) -> Member:
    """The member `name` out of its sealed evaluation."""
    metrics = json.loads(evaluation.file("metrics.json").read_text(encoding="utf-8"))
    table = pq.read_table(evaluation.file("predictions.parquet"))
    labels: list[str] = metrics["labels"]
    has_baseline = "baseline_predicted" in table.column_names
    return Member(
        name=name, path=evaluation.path, fingerprint=evaluation.manifest.fingerprint,
        corpus=evaluation.manifest.identity["corpus"], metrics=metrics, doc_ids=table["doc_id"].to_pylist(),
        label_ids=_positions(table["label"], labels),
        probabilities=np.stack([table[f"probability_{label}"].to_numpy() for label in labels], axis=1),
        baseline_ids=_positions(table["baseline_predicted"], labels) if has_baseline else None,
    )


def _positions(column: pa.ChunkedArray, labels: Sequence[str]) -> npt.NDArray[np.int64]:
    number = {label: i for i, label in enumerate(labels)}
    return np.array([number[label] for label in column.to_pylist()], dtype=np.int64)


def check_same_documents(members: Sequence[Member]) -> None:
    """InputError, naming both sides, if two members differ in labels, test documents, their order or their classes."""
    first = members[0]
    for other in members[1:]:
        sides = f"{other.path} and {first.path}"
        if other.labels != first.labels:
            raise InputError(
                f"{sides} have other labels: {first_difference(other.labels, first.labels)}.",
                f"Train both on the same labels; evaluate one alone: {_evaluate_again(other)}",
            )
        if other.doc_ids != first.doc_ids:
            raise InputError(
                f"{sides} scored other test documents: {first_difference(other.doc_ids, first.doc_ids)}.",
                f"Evaluate them again on the same ones: {_evaluate_again(other)}",
            )
        differ = np.flatnonzero(other.label_ids != first.label_ids)
        if len(differ):
            at = int(differ[0])
            raise InputError(
                f"{sides} have other labels for {first.doc_ids[at]}: {other.labels[other.label_ids[at]]!r} in the one, "
                f"{first.labels[first.label_ids[at]]!r} in the other.",
                f"Evaluate them again on the same corpus: {_evaluate_again(other)}",
            )


def _evaluate_again(member: Member) -> str:
    return f"python -m pipeline evaluate_classifier --run {member.path.parent.name} --force"
