"""What a classifier rung is measured by: the figures of an evaluation, on the labelled documents of the test split."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.report import metrics
from pipeline.report.predictions import predictions_table
from pipeline.settings import EvaluateClassifierSettings
from pipeline.text.ids import IdStore
from pipeline.text.labelled import labelled_documents

METRICS = "metrics.json"
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """Numbers of the labelled documents of each split."""

    train: Ids
    valid: Ids
    test: Ids


def labelled(store: IdStore, draw: int | None = None, seed: int = 0, *, learns_valid: bool = False) -> Splits:
    """The labelled documents of a run, of train and validation only those of the `draw` that its classifier looks at.

    With `learns_valid` those of validation count as train's, and none are left to choose by. Raises DataError if there
    is nothing to learn, to choose by or to score.
    """
    parts = {"train": ["train"], "valid": ["valid"], "test": ["test"]}
    if learns_valid:
        parts |= {"train": ["train", "valid"], "valid": []}
    found = {}
    for split, of in parts.items():
        found[split] = labelled_documents(store, of, draw, seed) if of else np.empty(0, np.int64)
        if (of and not len(found[split])) or len(store.labels) < 2:
            raise DataError(
                f"{store.path} has {len(found[split])} labelled documents of {split} and {len(store.labels)} labels; "
                "classifiers need documents of each split and two labels.",
                "Compare language models there, or change the fractions of prepare_corpus with --force.",
            )
    lacking = sorted(set(range(len(store.labels))) - set(store.label_ids[found["train"]].tolist()))
    if lacking:
        raise DataError(
            f"No labelled document of train that is looked at has the label {store.labels[lacking[0]]!r}.",
            "Let it look at more: run with a larger train_classifier.labelled, or without, then compare again.",
        )
    return Splits(**found)


def write_scores(
    store: IdStore, test: Ids, probabilities: NDArray[np.floating[Any]], seconds: float, *, seed: int, work: Path
) -> dict[str, Any]:
    """Write metrics.json and predictions.parquet of `probabilities` [documents, classes]; the headline.

    `seconds` is what the predictions took.
    """
    settings = EvaluateClassifierSettings()
    label_ids, evened = store.label_ids[test].astype(np.int64), metrics.normalized(probabilities)
    result = metrics.score(
        label_ids, evened, store.labels, bootstrap_samples=settings.bootstrap_samples,
        calibration_bins=settings.calibration_bins, seed=seed,
    )
    (work / METRICS).write_text(
        json.dumps(result, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    doc_ids = [str(store.doc_ids[i]) for i in test]
    pq.write_table(predictions_table(doc_ids, label_ids, evened, store.labels, None), work / "predictions.parquet")
    return {
        **headline(result), "test_documents": len(test), "documents_per_s": round(len(test) / max(seconds, 1e-9), 1)
    }


def headline(result: dict[str, Any]) -> dict[str, float]:
    """The figures of a metrics.json that classifiers are compared by; `macro_recall` is the mean over the classes."""
    recalls = [row["recall"] for row in result["per_class"] if row["recall"] is not None]
    return {
        "accuracy": result["accuracy"], "macro_f1": result["macro_f1"], "macro_recall": float(np.mean(recalls)),
        "log_loss": result["log_loss"],
    }
