"""An ONNX model beside the classifier it was made from: the same documents through onnxruntime and through ours.

Both read the same batches with as many threads. The float32 model has to agree for every length of document; int8 is
another model, so its differences are reported for people to judge. N documents, C classes.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from pipeline.artifact import Artifact
from pipeline.errors import DataError, InputError
from pipeline.inference.bundle import BS, ClassifierBundle
from pipeline.inference.classify import spread
from pipeline.inference.inputs import from_file
from pipeline.inference.pooling import Rows
from pipeline.model.architecture import HeadShape
from pipeline.progress import Reporter
from pipeline.report.chain import chain_to, opened
from pipeline.text.ids import IdStore
from pipeline.text.labelled import labelled_documents

TOLERANCE = 1e-4
"""Of float32 probabilities. Real differences are of 1e-6: sums are taken in another order."""
_GENERATED, _LONGEST_GENERATED = 200, 400


@dataclass(frozen=True)
class Sample:
    """Documents to compare with."""

    source: str
    """Where they come from, in words."""
    documents: Rows
    label_ids: NDArray[np.int64] | None
    """True classes [N]; None where they are not known."""


@dataclass
class _Side:
    """One model and what it gave."""

    predict: Callable[[Rows], NDArray[Any]]
    files: list[Path]
    probabilities: NDArray[np.float64]
    elapsed_s: float = 0.0


def find_sample(
    bundle: ClassifierBundle, classifier: Artifact, home: Path, *, texts: Path | None, text_column: str, split: str,
    n: int,
) -> Sample:
    """At most `n` documents: from the file `texts`, else the labelled ones in `split` of the ids that `classifier` was
    trained on, where these are still in their place below `home`, else random ones.

    Raises InputError and DataError for what cannot be read or holds nothing.
    """
    if texts is not None:
        rows = [row.text for row in _first(from_file(texts, None, text_column), n)]
        if not rows:
            raise DataError(f"{texts} holds no text.", "Give another --input.")
        return Sample(texts.name, bundle.text.encode(rows), None)
    ids = opened(chain_to(classifier, home), "ids")
    if ids is not None:
        store = IdStore.open(ids)
        labelled = labelled_documents(store, [split])
        if len(labelled):
            chosen = spread(labelled, n)
            where = f"{split} split of {classifier.manifest.inputs['ids'].path}"
            documents = [store.document(int(i)) for i in chosen]
            return Sample(where, documents, store.label_ids[chosen].astype(np.int64))
    lengths = np.random.default_rng(0).integers(1, _LONGEST_GENERATED, min(n, _GENERATED))
    return Sample("random tokens", _random(bundle, lengths), None)


def _first(rows: Iterable[Any], n: int) -> list[Any]:
    return [row for row, _ in zip(rows, range(n), strict=False)]


def _random(bundle: ClassifierBundle, lengths: Iterable[int]) -> Rows:
    rng = np.random.default_rng(0)
    return [rng.integers(0, len(bundle.text.numbers), length) for length in lengths]


def compare(
    bundle: ClassifierBundle, weights: list[Path], models: Mapping[str, Path], sample: Sample, reporter: Reporter
) -> dict[str, Any]:
    """What parity.json holds: sizes, speeds, differences and accuracies of ours and of each of `models`, by name.

    `weights` are our own files; the model called float32 has to agree with `bundle`, which is float32 as well. Raises
    InputError if it does not.
    """
    threads = torch.get_num_threads()
    lengths = np.array([len(document) for document in sample.documents], dtype=np.int64)
    sessions = {name: _session(path, threads) for name, path in models.items()}
    at_edges = _at_edges(bundle, sessions["float32"])
    empty = np.zeros((len(lengths), len(bundle.labels)))
    sides = {"ours": _Side(partial(bundle.classifier.batch, bs=BS), weights, empty.copy())} | {
        name: _Side(partial(_run, session), [models[name]], empty.copy()) for name, session in sessions.items()
    }
    with reporter.task("comparing", len(lengths), "documents") as task:
        for batch in bundle.classifier.batches(lengths, BS):
            rows = [sample.documents[i] for i in batch]
            for side in sides.values():  # in turn, so that what else the machine does slows all of them
                started = time.perf_counter()
                side.probabilities[batch] = side.predict(rows)
                side.elapsed_s += time.perf_counter() - started
            task.advance(len(batch))
    ours = sides["ours"].probabilities
    found = {
        name: {
            "files": [path.name for path in side.files],
            "size_mb": round(sum(path.stat().st_size for path in side.files) / 1e6, 3),
            "documents_per_s": round(len(lengths) / side.elapsed_s, 1),
            **_agreement(side.probabilities, ours, sample.label_ids),
        }
        for name, side in sides.items()
    }
    _require_equal(max(at_edges["max_difference"], found["float32"]["max_difference"]))
    return {
        "sample": sample.source, "documents": len(lengths), "mean_tokens": round(float(lengths.mean()), 1),
        "bs": BS, "threads": threads, "every_length": at_edges, "models": found,
        "versions": {package: version(package) for package in ("onnx", "onnxruntime", "torch")},
    }


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, documents: Rows) -> NDArray[np.float32]:
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    ids = np.zeros((len(documents), lengths.max()), dtype=np.int64)
    for row, document in zip(ids, documents, strict=True):
        row[: len(document)] = document
    (probabilities,) = session.run(None, {"ids": ids, "lengths": lengths})
    return probabilities


def _at_edges(bundle: ClassifierBundle, session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """The largest difference for documents as long as a chunk, as `max_len`, longer and shorter, in one batch."""
    shape: HeadShape = bundle.classifier.model.shape
    edges = {1, 2, shape.seq_len, shape.max_len, 2 * shape.max_len + shape.seq_len // 2}
    lengths = sorted({max(edge + d, 1) for edge in edges for d in (-1, 0, 1)}, reverse=True)
    documents = _random(bundle, lengths)
    difference = np.abs(_run(session, documents) - bundle.probabilities(documents)).max()
    return {"lengths": lengths, "max_difference": float(difference)}


def _agreement(
    probabilities: NDArray[np.float64], ours: NDArray[np.float64], label_ids: NDArray[np.int64] | None
) -> dict[str, Any]:
    predicted = probabilities.argmax(axis=1)
    agreement: dict[str, Any] = {}
    if probabilities is not ours:
        agreement = {
            "max_difference": float(np.abs(probabilities - ours).max()),
            "mean_difference": float(np.abs(probabilities - ours).mean()),
            "equal_labels": float((predicted == ours.argmax(axis=1)).mean()),
        }
    if label_ids is not None:
        agreement["accuracy"] = float((predicted == label_ids).mean())
    return agreement


def _require_equal(difference: float) -> None:
    if not difference <= TOLERANCE:
        raise InputError(
            f"onnxruntime {version('onnxruntime')} gives probabilities that differ by {difference:.2g} from this "
            f"program's, more than {TOLERANCE:g}.",
            "Install the versions of constraints.txt.",
        )
