"""Score the classifier on the test split, beside a TF-IDF baseline.

The only stage that looks at test labels. Writes metrics.json (everything), predictions.parquet (one row per document)
and evaluation.md (for people).
"""

import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline import stopping
from pipeline.artifact import Artifact, hash_json
from pipeline.custody import has_other_corpora
from pipeline.errors import DataError, DivergedError
from pipeline.inference.classify import check_tokens, predict_documents
from pipeline.making import StageOutcome
from pipeline.report import evaluation_page, lineage, metrics
from pipeline.report.baseline import BASELINE_NAME, fit_and_predict
from pipeline.report.documents import LabelledDocuments, check_same_labels, load_labelled
from pipeline.report.predictions import headline, predictions_table
from pipeline.settings import EvaluateClassifierSettings
from pipeline.stage import StageContext
from pipeline.text.ids import IdStore
from pipeline.text.labelled import labelled_documents
from pipeline.text.tokenizer import tokenizer_kind
from pipeline.text.vocabulary import read_vocabulary
from pipeline.training.checkpoints import CheckpointStore
from pipeline.training.device import resolve_device

LISTED_MISTAKES = 5


def run(context: StageContext) -> StageOutcome:
    """Predict every labelled test document, compare with the baseline and write the evaluation.

    Raises InputError if corpus, ids and classifier do not belong together, DataError if there is nothing to score or
    if text is no longer read as it was for training, and DivergedError if the classifier's probabilities are not
    finite.
    """
    settings: EvaluateClassifierSettings = context.settings
    corpus, ids, classifier = (context.inputs[slot] for slot in ("corpus", "ids", "classifier"))
    labels = check_same_labels(ids, classifier)
    store = IdStore.open(ids)
    test = load_labelled(corpus, store, "test")
    if not len(test.indices):
        raise DataError(
            f"{corpus.path} has no labelled test documents"
            + (f" ({test.n_unlabelled:,} without a label)." if test.n_unlabelled else "."),
            "Set prepare_corpus.test_fraction above 0, or give the source a test split with labels.",
        )
    n_same = check_tokens(classifier, corpus, store)
    context.reporter.line(f"evaluate_classifier: {n_same} training texts give the tokens they were trained with")
    device = resolve_device(context.recipe.run)
    context.reporter.line(f"evaluate_classifier: {len(test.indices):,} test documents, {device.describe()}")
    checkpoints = CheckpointStore(
        context.resume / "predictions", _prediction_key(context), keep=2, reporter=context.reporter
    )
    started = time.monotonic()
    probabilities = _checked(
        predict_documents(
            classifier, store, test.indices, bs=settings.bs, run=context.recipe.run, checkpoints=checkpoints,
            reporter=context.reporter,
        ),
        classifier, (len(test.indices), len(labels)),
    )
    predict_s = time.monotonic() - started
    protocol = _protocol(corpus, ids, classifier, store, test)
    trained_on = ("train", "valid") if protocol["validated_on"] == "test" else ("train",)
    learned = _learned(classifier, store, trained_on, protocol["labelled"])
    train_ids = store.label_ids[learned]
    scoring: dict[str, Any] = {
        "bootstrap_samples": settings.bootstrap_samples, "calibration_bins": settings.calibration_bins,
        "seed": context.recipe.run.seed,
    }
    majority_id, majority_accuracy = metrics.majority_class(train_ids, test.label_ids)
    result: dict[str, Any] = {
        **metrics.score(test.label_ids, probabilities, labels, **scoring),
        "test_documents": len(test.indices),
        "majority_label": labels[majority_id],
        "majority_accuracy": majority_accuracy,
    }
    baseline_ids = None
    stopping.check("evaluate_classifier before the baseline")
    if settings.baseline:
        train = [load_labelled(corpus, store, split, learned) for split in trained_on]
        texts = [text for part in train for text in part.texts]
        context.reporter.line(
            f"evaluate_classifier: fitting {BASELINE_NAME} on {len(texts):,} documents of {' and '.join(trained_on)}"
        )
        baseline = fit_and_predict(texts, np.concatenate([p.label_ids for p in train]), test.texts, len(labels))
        baseline_ids = baseline.argmax(axis=1)
        result["baseline"] = {"name": BASELINE_NAME, **metrics.score(test.label_ids, baseline, labels, **scoring)}
        result["mcnemar"] = metrics.mcnemar(
            probabilities.argmax(axis=1) == test.label_ids, baseline_ids == test.label_ids
        )
    result |= {
        "labels": labels,
        "classifier": _about(classifier),
        "mistakes": _mistakes(test, probabilities, labels),
        "protocol": protocol,
        "lineage": lineage.fingerprints([corpus, ids, classifier]),
        "bootstrap_samples": settings.bootstrap_samples,
        "seed": context.recipe.run.seed,
        "device": str(device.device),
        "precision": {"requested": device.requested, "effective": device.precision},
    }
    (context.work / "metrics.json").write_text(
        json.dumps(result, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    (context.work / "evaluation.md").write_text(evaluation_page.render(result), encoding="utf-8")
    table = predictions_table(test.doc_ids, test.label_ids, probabilities, labels, baseline_ids)
    pq.write_table(table, context.work / "predictions.parquet")
    # What a stopped attempt predicted before took no time here.
    speed = {} if context.resuming else {"documents_per_s": round(len(test.indices) / max(predict_s, 1e-9), 1)}
    return StageOutcome(
        headline(result) | speed, {**classifier.manifest.identity, "corpus": corpus.manifest.fingerprint},
        device=result["device"], hardware=device.gpu, precision=result["precision"],
    )


def _prediction_key(context: StageContext) -> str:
    """What predictions so far belong to; the batch size may change between two attempts, and with it the batches."""
    return hash_json([context.fingerprint, context.settings.bs])


def _about(classifier: Artifact) -> dict[str, Any]:
    """What tells one classifier from another: direction, kind of tokenizer, entries of the vocabulary, seed."""
    return {
        "direction": classifier.manifest.identity["direction"],
        "tokenizer": tokenizer_kind(classifier.path / "tokenizer"),
        "vocabulary": len(read_vocabulary(classifier.path)),
        "seed": classifier.manifest.settings.get("run", {}).get("seed"),
    }


def _checked(
    probabilities: npt.NDArray[np.floating[Any]], classifier: Artifact, shape: tuple[int, int]
) -> npt.NDArray[np.float64]:
    if probabilities.shape != shape:
        raise ValueError(f"predict_documents returned {probabilities.shape}, not {shape}")
    bad = np.count_nonzero(~np.isfinite(probabilities).all(axis=1))
    if bad:
        raise DivergedError(
            f"{classifier.path} gives probabilities that are not finite for {bad:,} of {shape[0]:,} test documents.",
            "Train the classifier again with a lower learning rate or run.precision=fp32.",
        )
    return metrics.normalized(probabilities)


def _mistakes(
    test: LabelledDocuments, probabilities: npt.NDArray[np.float64], labels: list[str]
) -> list[dict[str, Any]]:
    """The wrongly predicted documents with the highest probability, first of equals in corpus order."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != test.label_ids)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:LISTED_MISTAKES]
    return [
        {
            "doc_id": test.doc_ids[i],
            "label": labels[test.label_ids[i]],
            "predicted": labels[predicted[i]],
            "probability": float(confidence[i]),
            "excerpt": evaluation_page.excerpt(test.texts[i]),
        }
        for i in worst
    ]


def _protocol(
    corpus: Artifact, ids: Artifact, classifier: Artifact, store: IdStore, test: LabelledDocuments
) -> dict[str, Any]:
    """Who has read what."""
    return {
        "transductive": bool(classifier.manifest.metrics.get("transductive")),
        "validated_on": classifier.manifest.metrics.get("validated_on", "valid"),
        "other_corpora": has_other_corpora(corpus.manifest.fingerprint, [classifier]),
        "trained_elsewhere": classifier.manifest.identity.get("corpus") != corpus.manifest.fingerprint,
        "language_model_read": classifier.manifest.metrics.get("language_model_read"),
        "language_model_known": "transductive" in classifier.manifest.metrics,
        "classifier_trained_on_this_split": lineage.trained_on(classifier, ids),
        "labelled": classifier.manifest.metrics.get("labelled"),
        "documents": {split: len(store.documents(split)) for split in ("train", "unlabelled", "valid", "test")},
        "test_documents_without_label": test.n_unlabelled,
        "duplicates": _counts(corpus.manifest.metrics.get("duplicates", {}), "duplicates"),
    }


def _learned(
    classifier: Artifact, store: IdStore, splits: tuple[str, ...], labelled: int | None
) -> npt.NDArray[np.int64]:
    """The documents that the classifier was trained on, and the baseline is; of another corpus: as many as it has."""
    seed = classifier.manifest.settings.get("run", {}).get("seed", 0)
    return labelled_documents(store, splits, labelled, seed)


def _counts(value: Any, name: str) -> dict[str, int]:
    """The numbers in nested dictionaries, each named by its path."""
    if not isinstance(value, dict):
        return {name: value}
    return {path: count for key, inner in value.items() for path, count in _counts(inner, f"{name} {key}").items()}
