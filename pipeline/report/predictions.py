"""What an evaluation of one classifier or of an ensemble keeps: a row per document, and its headline."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.protocol import protocol_of

HEADLINE = (
    "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "calibration_error", "test_documents",
    "majority_accuracy",
)
FIGURES = HEADLINE[:6]
"""Those of them that classifiers are compared by."""


def headline(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of metrics.json that go into the manifest and the result table."""
    figures = {name: result[name] for name in HEADLINE}
    figures |= {key: result["protocol"][key] for key in ("transductive", "validated_on")}
    figures["protocol"] = protocol_of(result["protocol"])
    if result["protocol"].get("trained_elsewhere"):
        figures["trained_elsewhere"] = True
    if "baseline" in result:
        figures["baseline"] = {k: result["baseline"][k] for k in ("name", "accuracy", "accuracy_low", "accuracy_high")}
        figures["mcnemar_p"] = result["mcnemar"]["p"]
    return figures


def predictions_table(
    doc_ids: Sequence[str], label_ids: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64],
    labels: Sequence[str], baseline_ids: npt.NDArray[np.int64] | None,
) -> pa.Table:
    """predictions.parquet of N documents: true and predicted label, those of the baseline, C probabilities."""
    names = np.asarray(labels, dtype=object)
    predicted = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        "doc_id": pa.array(doc_ids, pa.string()),
        "label": pa.array(names[label_ids], pa.string()),
        "predicted": pa.array(names[predicted], pa.string()),
        "correct": pa.array(predicted == label_ids),
    }
    if baseline_ids is not None:
        columns["baseline_predicted"] = pa.array(names[baseline_ids], pa.string())
    for column, label in enumerate(labels):
        columns[f"probability_{label}"] = pa.array(probabilities[:, column])
    return pa.table(columns)
