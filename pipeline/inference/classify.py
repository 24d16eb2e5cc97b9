"""Class probabilities of the documents of an ids artifact, and the proof that text is still read as it was."""

import time

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline import stopping
from pipeline.artifact import Artifact
from pipeline.errors import DataError, Stopped
from pipeline.inference.bundle import LoadedClassifier
from pipeline.progress import Reporter
from pipeline.settings import RunSettings
from pipeline.text.ids import IdStore
from pipeline.text.text_encoder import TextEncoder
from pipeline.training.checkpoints import CheckpointStore
from pipeline.training.device import keep_freed_memory
from pipeline.training.state import read_state, write_state

CHECKPOINT_S = 300.0
"""Time between two checkpoints of the predictions."""
SAMPLE_DOCUMENTS = 100
SAMPLE_GROUPS = 10
"""The sample comes from that many row groups of the corpus, so that little of a large one is read."""


def predict_documents(
    classifier: Artifact, store: IdStore, documents: NDArray[np.int64], *, bs: int, run: RunSettings,
    reporter: Reporter, checkpoints: CheckpointStore | None = None,
) -> NDArray[np.float64]:
    """Probabilities [N documents, C classes] of `documents`, in their order; columns as in labels.json.

    Goes on after the newest of `checkpoints`, if there are any. Raises Stopped, after another one, if a stop was asked
    for.
    """
    keep_freed_memory()
    loaded = LoadedClassifier.load(classifier, run)
    batches = loaded.batches(store.n_tokens[documents], bs)
    probabilities, done = np.zeros((len(documents), loaded.model.shape.n_classes)), 0
    newest = checkpoints.newest() if checkpoints else None
    if newest is not None:
        state = read_state(newest)
        probabilities, done = state["probabilities"].numpy(), state["batches"]
        reporter.line(f"going on after batch {done} of {len(batches)}")

    def save() -> None:
        if checkpoints:
            tree = {"batches": done, "probabilities": torch.from_numpy(probabilities)}
            checkpoints.save(done, lambda folder: write_state(tree, folder), probabilities.nbytes)

    def check() -> None:
        stopping.check(f"Predicting after batch {done} of {len(batches)}")

    saved_at = time.monotonic()
    try:
        with reporter.task("predicting", len(documents), "documents") as task:
            task.advance(sum(map(len, batches[:done])))
            for positions in batches[done:]:
                rows = [store.document(int(i)) for i in documents[positions]]
                probabilities[positions] = loaded.batch(rows, bs, check)
                task.advance(len(positions))
                done += 1
                if time.monotonic() - saved_at >= CHECKPOINT_S:
                    save()
                    saved_at = time.monotonic()
        check()
    except Stopped:
        save()
        raise
    return probabilities


def check_tokens(classifier: Artifact, corpus: Artifact, store: IdStore) -> int:
    """Encode a sample of the training text anew, as `predict` would, and compare with the stored ids.

    Returns the number of documents. Raises DataError for the first that differs: predictions on new text would then
    not be those of the model that is evaluated.
    """
    numbers, texts = _sample(corpus, store)
    for number, ids in zip(numbers, TextEncoder.load(classifier.path).encode(texts), strict=True):
        stored = store.document(number)
        if not np.array_equal(ids, stored):
            shared = min(len(ids), len(stored))
            differs = np.append(ids[:shared] != stored[:shared], True)
            at = int(differs.argmax())
            found, expected = (repr(store.vocabulary[p[at]]) if at < len(p) else "the end" for p in (ids, stored))
            raise DataError(
                f"Document {store.doc_ids[number]} of train gives other tokens now than in {store.path}: number "
                f"{at + 1} is {found} instead of {expected}, so {classifier.path} does not read text as it was read "
                "for training.",
                "Install the versions that its manifest names, or tokenize and train anew in a run of another "
                "name: --run NAME.",
            )
    return len(texts)


def _sample(corpus: Artifact, store: IdStore) -> tuple[list[int], list[str]]:
    """Numbers and texts of train documents, spread evenly over the corpus."""
    train = store.documents("train")
    numbers: list[int] = []
    texts: list[str] = []
    with pq.ParquetFile(corpus.file("documents.parquet")) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum(groups)
        inside = [i for i, end in enumerate(ends) if np.any((train < end) & (train >= end - groups[i]))]
        chosen = spread(np.array(inside, dtype=np.int64), SAMPLE_GROUPS)
        for group in chosen:
            start = int(ends[group]) - groups[group]
            here = spread(train[(train >= start) & (train < ends[group])], -(-SAMPLE_DOCUMENTS // len(chosen)))
            column = file.read_row_group(int(group), columns=["text"])["text"]
            numbers += here.tolist()
            texts += column.take(here - start).to_pylist()
    return numbers, texts


def spread(values: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """At most `n` of `values`, evenly spaced, first and last among them."""
    if len(values) <= n:
        return values
    return values[np.linspace(0, len(values) - 1, n).round().astype(np.int64)]
