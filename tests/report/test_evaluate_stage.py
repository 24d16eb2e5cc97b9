"""pipeline.stages.evaluate_classifier on sealed artifacts: review-like sentences, small untrained classifier."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics
import torch

from pipeline import artifact as artifacts
from pipeline import stopping
from pipeline.artifact import InputRecord, Manifest
from pipeline.attempt import open_partial
from pipeline.errors import DataError, DivergedError, InputError, Stopped
from pipeline.inference.classify import check_tokens, predict_documents
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.model.weights import load_classifier, save_classifier
from pipeline.progress import Reporter
from pipeline.provenance import now
from pipeline.recipe import Recipe
from pipeline.report import metrics as scores
from pipeline.report.evaluation_page import render
from pipeline.report.predictions import headline
from pipeline.settings import EvaluateClassifierSettings, RunSettings
from pipeline.stage import Run, run_stage, stage_named
from pipeline.text.ids import IdStore
from pipeline.text.tokenizer import save_tokenizer
from pipeline.text.vocabulary import write_vocabulary
from pipeline.text.word import WordTokenizer
from pipeline.training.checkpoints import CheckpointStore

LABELS = ["negative", "neutral", "positive"]
SENTENCES = {
    "positive": ["a warm and witty film", "loved the cast , loved the story", "a lovely , quiet film with a fine cast"],
    "negative": ["a dull and tired film", "hated the story", "an endless , dull story with a poor cast , truly tired"],
    "neutral": ["the film opens today", "it runs for two hours"],
}
SPECIALS = ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj"]
Rows = list[dict[str, Any]]


def sentences() -> Rows:
    """Three copies of every sentence for train, one for test; doc_ids are in no alphabetical order."""
    rows = []
    for split, copies in (("train", 3), ("test", 1)):
        for copy in range(copies):
            for label, texts in SENTENCES.items():
                rows += [
                    {"doc_id": f"{split}/{(i + 3) % 5}-{label}-{copy}", "split": split, "label": label, "text": text}
                    for i, text in enumerate(texts)
                ]
    rows.append({"doc_id": "test/none", "split": "test", "label": None, "text": "nobody rated this film"})
    return rows


def seal(path: Path, slot: str, files: Callable[[Path], None], **fields: Any) -> Manifest:
    """A sealed artifact of `slot` at `path`, replacing what is there."""
    work, _ = open_partial(path, slot * 8)
    files(work)
    empty: dict[str, Any] = {
        "stage": slot, "code_version": 1, "fingerprint": artifacts.hash_json([slot, str(fields)]), "settings": {},
        "inputs": {}, "source": None, "identity": {}, "files": {}, "versions": {}, "git_commit": None,
        "git_dirty": None, "host": "test", "job_id": None, "device": None, "precision": None,
        "created": now(), "wall_s": 0.0, "peak_memory_mb": 0.0, "metrics": {},
    }
    return artifacts.seal(path, Manifest(slot=slot, **(empty | fields))).manifest


class Project:
    """A home with a sealed corpus, ids and classifier; each can be sealed again with something changed."""

    def __init__(self, home: Path) -> None:
        self.run = Run("trial", Recipe(run=RunSettings(precision="fp32")), home)
        self.rows = sentences()
        words = sorted({word for row in self.rows for word in row["text"].split()})
        self.vocabulary = SPECIALS + words
        self.identity = {"tokenizer": "c" * 64, "vocabulary": artifacts.hash_json(self.vocabulary)}
        self.identity["corpus"] = self.seal_corpus(self.rows).fingerprint
        self.ids_manifest = self.seal_ids(self.rows)
        self.seal_classifier()

    def seal_corpus(self, rows: Rows) -> Manifest:
        def files(folder: Path) -> None:
            pq.write_table(
                pa.table({
                    "doc_id": [row["doc_id"] for row in rows], "split": [row["split"] for row in rows],
                    "label": pa.array([row["label"] for row in rows], pa.string()),
                    "group": pa.nulls(len(rows), pa.string()),
                    "n_chars": pa.array([len(row["text"]) for row in rows], pa.int32()),
                    "text": [row["text"] for row in rows],
                }),
                folder / "documents.parquet", row_group_size=4,
            )
            (folder / "labels.json").write_text(json.dumps(LABELS), encoding="utf-8")

        counts = {"documents": 33, "duplicates": {"within": {"train": 16}, "across": {"train/test": 8}, "dropped": 0}}
        return seal(self.run.path("corpus"), "corpus", files, metrics=counts)

    def seal_ids(self, rows: Rows) -> Manifest:
        position = {token: number for number, token in enumerate(self.vocabulary)}
        documents = [[position["xxbos"], *(position[word] for word in row["text"].split())] for row in rows]

        def files(folder: Path) -> None:
            np.concatenate(documents).astype("<u2").tofile(folder / "ids.bin")
            lengths = [len(document) for document in documents]
            np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
            label_ids = [LABELS.index(row["label"]) if row["label"] in LABELS else -1 for row in rows]
            pq.write_table(
                pa.table({
                    "doc_id": [row["doc_id"] for row in rows], "split": [row["split"] for row in rows],
                    "label": pa.array([row["label"] for row in rows], pa.string()),
                    "label_id": pa.array(label_ids, pa.int32()),
                    "n_chars": pa.array([len(row["text"]) for row in rows], pa.int32()),
                    "n_tokens": pa.array(lengths, pa.int32()),
                }),
                folder / "documents.parquet",
            )
            (folder / "vocabulary.json").write_text(json.dumps(self.vocabulary), encoding="utf-8")
            (folder / "labels.json").write_text(json.dumps(LABELS), encoding="utf-8")

        return seal(self.run.path("ids"), "ids", files, identity=self.identity,
                    inputs={"tokens": InputRecord(path="data/trial/tokens", fingerprint="d" * 64)})

    def seal_classifier(
        self, labels: list[str] = LABELS, transductive: bool = False, broken: bool = False,
        rules: str = "none", **identity: str
    ) -> None:
        architecture, head = Architecture(len(self.vocabulary), 8, 12, 2), HeadShape(len(labels), (6,), 5, 50)

        def files(folder: Path) -> None:
            torch.manual_seed(3)
            model = build_classifier(architecture, head)
            if broken:
                with torch.no_grad():
                    model[1].layers[-1][-1].weight.fill_(torch.nan)
            save_classifier(model, folder)
            architecture.save(folder / "architecture.json")
            head.save(folder / "head.json")
            (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
            write_vocabulary(folder, self.vocabulary)
            save_tokenizer(WordTokenizer(rules=rules), folder / "tokenizer")

        seal(
            self.run.path("classifier"), "classifier", files,
            identity={**self.identity, "direction": "fwd", "architecture": architecture.hash(), **identity},
            inputs={"ids": InputRecord(path="data/trial/ids", fingerprint=self.ids_manifest.fingerprint),
                    "lm": InputRecord(path="models/trial/lm-fwd", fingerprint="e" * 64)},
            metrics={"transductive": transductive}, settings={"run": {"seed": 11}},
        )

    def evaluate(self, **settings: Any) -> tuple[Manifest, dict[str, Any], str, Rows]:
        """Manifest, metrics.json, evaluation.md and rows of predictions.parquet."""
        recipe = self.run.recipe.model_copy(update={"evaluate_classifier": EvaluateClassifierSettings(**settings)})
        run = Run(self.run.name, recipe, self.run.home)
        sealed = run_stage(run, stage_named("evaluate_classifier"), Reporter(io.StringIO()))
        return (
            sealed.manifest,
            json.loads(sealed.file("metrics.json").read_text(encoding="utf-8")),
            sealed.file("evaluation.md").read_text(encoding="utf-8"),
            pq.read_table(sealed.file("predictions.parquet")).to_pylist(),
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_writes_an_evaluation_that_agrees_with_itself(project: Project) -> None:
    manifest, metrics, page, rows = project.evaluate(bs=3)
    assert set(manifest.files) == {"metrics.json", "predictions.parquet", "evaluation.md"}
    speed = manifest.metrics.pop("documents_per_s")
    assert speed > 0
    assert manifest.metrics == headline(metrics)
    assert page == render(metrics)
    true, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    assert metrics["test_documents"] == len(rows) == 8
    assert metrics["accuracy"] == sklearn.metrics.accuracy_score(true, predicted)
    assert metrics["confusion_matrix"] == sklearn.metrics.confusion_matrix(true, predicted, labels=LABELS).tolist()
    assert [row["correct"] for row in rows] == [a == b for a, b in zip(true, predicted, strict=True)]
    probabilities = np.array([[row[f"probability_{label}"] for label in LABELS] for row in rows])
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    assert [LABELS[i] for i in probabilities.argmax(axis=1)] == predicted
    assert manifest.precision == {"requested": "fp32", "effective": "fp32"}
    assert metrics["protocol"]["documents"] == {"train": 24, "unlabelled": 0, "valid": 0, "test": 9}
    assert metrics["protocol"]["test_documents_without_label"] == 1
    assert metrics["protocol"]["duplicates"] == {
        "duplicates within train": 16, "duplicates across train/test": 8, "duplicates dropped": 0
    }
    assert "- Corpus, duplicates across train/test: 8.\n" in page
    assert list(metrics["lineage"]) == ["corpus", "ids", "classifier", "tokens", "lm"]


def test_an_evaluation_says_what_an_ensemble_has_to_know(project: Project) -> None:
    manifest, metrics, _, rows = project.evaluate()
    corpus = artifacts.open_artifact(project.run.path("corpus"), "corpus")
    assert manifest.identity["corpus"] == corpus.manifest.fingerprint
    assert {key: manifest.identity[key] for key in ("direction", "tokenizer", "vocabulary")} == {
        "direction": "fwd", "tokenizer": "c" * 64, "vocabulary": project.identity["vocabulary"]
    }
    assert metrics["classifier"] == {
        "direction": "fwd", "tokenizer": "word", "vocabulary": len(project.vocabulary), "seed": 11
    }
    probabilities = np.array([[row[f"probability_{label}"] for label in LABELS] for row in rows])
    label_ids = np.array([LABELS.index(row["label"]) for row in rows])
    assert scores.log_loss(label_ids, probabilities) == metrics["log_loss"]  # to the last bit: nothing was rounded


def test_every_document_gets_its_own_prediction(project: Project) -> None:
    """Batches are sorted by length; predicting one document at a time cannot mix them up."""
    rows = project.evaluate(bs=4)[3]
    ids = artifacts.open_artifact(project.run.path("ids"), "ids")
    classifier = artifacts.open_artifact(project.run.path("classifier"), "classifier")
    store = IdStore.open(ids)
    texts = {row["doc_id"]: row["text"] for row in project.rows}
    assert len({len(texts[row["doc_id"]].split()) for row in rows}) > 3
    for row in rows:
        number = [other["doc_id"] for other in project.rows].index(row["doc_id"])
        alone = predict_documents(
            classifier, store, np.array([number]), bs=1, run=project.run.recipe.run, reporter=Reporter(io.StringIO())
        )
        assert alone[0] == pytest.approx([row[f"probability_{label}"] for label in LABELS], abs=1e-6)
        assert row["label"] == project.rows[number]["label"]
    model = build_classifier(Architecture.load(classifier.file("architecture.json")),
                             HeadShape.load(classifier.file("head.json")))
    load_classifier(model, classifier.path)
    document = torch.tensor(store.ids[store.offsets[24] : store.offsets[25]].astype(np.int64))[None]
    with torch.inference_mode():
        expected = torch.softmax(model.eval()(document)[0], dim=1)[0].tolist()
    assert [rows[0][f"probability_{label}"] for label in LABELS] == pytest.approx(expected, abs=1e-5)


def test_baseline_learns_the_sentences_and_is_compared(project: Project) -> None:
    manifest, metrics, page, rows = project.evaluate()
    assert metrics["baseline"]["accuracy"] == 1.0  # train holds the same sentences
    assert [row["baseline_predicted"] for row in rows] == [row["label"] for row in rows]
    assert manifest.metrics["baseline"] == {
        "name": "TF-IDF + logistic regression", "accuracy": 1.0, "accuracy_low": 1.0, "accuracy_high": 1.0
    }
    assert metrics["mcnemar"]["only_baseline_right"] == sum(not row["correct"] for row in rows)
    assert "TF-IDF + logistic regression reaches 100.00 %" in page


def test_without_the_baseline(project: Project) -> None:
    manifest, metrics, page, rows = project.evaluate(baseline=False)
    assert "baseline" not in manifest.metrics
    assert "mcnemar_p" not in manifest.metrics
    assert "baseline_predicted" not in rows[0]
    assert "TF-IDF" not in page + json.dumps(metrics)


def test_mistakes_are_the_most_confident_ones(project: Project) -> None:
    _, metrics, page, rows = project.evaluate()
    wrong = sorted((max(row[f"probability_{label}"] for label in LABELS) for row in rows if not row["correct"]),
                   reverse=True)
    texts = {row["doc_id"]: row["text"] for row in project.rows}
    assert [m["probability"] for m in metrics["mistakes"]] == pytest.approx(wrong[:5], abs=1e-6)
    assert wrong
    for mistake in metrics["mistakes"]:
        assert mistake["excerpt"] == texts[mistake["doc_id"]]
        assert mistake["excerpt"] in page


def test_transductive_language_model_is_reported(project: Project) -> None:
    assert project.evaluate()[0].metrics["transductive"] is False
    other = Project(project.run.home / "elsewhere")
    other.seal_classifier(transductive=True)
    manifest, _, page, _ = other.evaluate()
    assert manifest.metrics["transductive"] is True
    assert "> **Note.** These numbers are transductive" in page


def test_other_document_order_is_refused(project: Project) -> None:
    rows = project.rows
    project.seal_corpus([*rows[:24], rows[25], rows[24], *rows[26:]])
    with pytest.raises(InputError, match=r"the ids list other documents of test: number 1 is .* in the one, .* in the"):
        project.evaluate()


def test_missing_document_is_refused(project: Project) -> None:
    project.seal_corpus(project.rows[:-1])
    with pytest.raises(InputError, match=r"list other documents of test: 8 in the one, 9 in the other\. Make the ids"):
        project.evaluate()


def test_other_label_is_refused(project: Project) -> None:
    project.seal_corpus([*project.rows[:-1], {**project.rows[-1], "label": "neutral"}])
    with pytest.raises(InputError, match=r"Document test/none has the label 'neutral' in .* and None in the ids"):
        project.evaluate()


def test_label_unknown_to_train_is_refused(project: Project) -> None:
    rows = [*project.rows[:-1], {**project.rows[-1], "label": "mixed"}]
    project.seal_corpus(rows)
    project.seal_ids(rows)
    with pytest.raises(DataError, match="test/none of test has the label 'mixed', which no document of train has"):
        project.evaluate()


@pytest.mark.parametrize("labelled", [True, False])
def test_nothing_to_score_is_refused(project: Project, labelled: bool) -> None:
    rows = [row for row in project.rows if row["split"] == "train" or (row["label"] is None and not labelled)]
    project.seal_corpus(rows)
    project.seal_ids(rows)
    with pytest.raises(DataError, match=r"no labelled test documents.* Set prepare_corpus\.test_fraction above 0, or"):
        project.evaluate()


@pytest.mark.parametrize("name", ["tokenizer", "vocabulary"])
def test_classifier_of_another_vocabulary_is_refused(project: Project, name: str) -> None:
    project.seal_classifier(**{name: "9" * 64})
    here = project.identity[name][:12]
    expected = f"The {name} of .* \\({here}\\) is not that of .* \\({'9' * 12}\\)\\. Train a classifier on"
    with pytest.raises(InputError, match=expected):
        project.evaluate()


def test_classifier_of_other_labels_is_refused(project: Project) -> None:
    project.seal_classifier(labels=["negative", "positive"])
    with pytest.raises(InputError, match=r"other labels: number 2 is 'positive' in the one, 'neutral' in the other"):
        project.evaluate()


def test_probabilities_that_are_not_finite_are_refused(project: Project) -> None:
    project.seal_classifier(broken=True)
    with pytest.raises(DivergedError, match=r"not finite for 8 of 8 test documents.*lower learning rate"):
        project.evaluate()


def test_text_that_is_read_otherwise_than_in_training_is_refused(project: Project) -> None:
    """The classifier's tokenizer has other rules than the one the ids were made with."""
    project.rows = [{**row, "text": row["text"].replace("a warm", "a Warm")} for row in project.rows]
    project.seal_corpus(project.rows)
    with pytest.raises(DataError, match=r"train gives other tokens now .* number 3 is 'xxunk' instead of 'warm', so "):
        project.evaluate()


def test_a_sample_of_the_training_text_is_read_again(project: Project) -> None:
    corpus, ids, classifier = (
        artifacts.open_artifact(project.run.path(slot), slot) for slot in ("corpus", "ids", "classifier")
    )
    store = IdStore.open(ids)
    assert check_tokens(classifier, corpus, store) == 24
    project.seal_classifier(rules="fastai")  # no capitals, no repeats: the same tokens
    assert check_tokens(artifacts.open_artifact(project.run.path("classifier"), "classifier"), corpus, store) == 24


@pytest.mark.parametrize("bs", [1, 3, 64])
def test_stopped_predictions_go_on(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bs: int) -> None:
    classifier = artifacts.open_artifact(project.run.path("classifier"), "classifier")
    store = IdStore.open(artifacts.open_artifact(project.run.path("ids"), "ids"))
    log = io.StringIO()

    def predict(checkpoints: CheckpointStore | None = None) -> Any:
        return predict_documents(
            classifier, store, np.arange(33), bs=bs, run=project.run.recipe.run, reporter=Reporter(log),
            checkpoints=checkpoints,
        )

    whole = predict()
    checkpoints = CheckpointStore(tmp_path / "checkpoints", "a" * 64, keep=2, reporter=Reporter(log))
    seen = 0
    check = stopping.check

    def third_time(where: str) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            stopping.ask("a test")
        check(where)

    with monkeypatch.context() as patched:
        patched.setattr(stopping, "check", third_time)
        with pytest.raises(Stopped, match=r"Predicting after batch \d of \d+ was stopped by a test"):
            predict(checkpoints)
    stopping.forget()
    assert (predict(checkpoints) == whole).all()
    assert "going on after batch" in log.getvalue()


def test_an_evaluation_that_was_stopped_tells_no_speed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    check, seen = stopping.check, 0

    def second_time(where: str) -> None:
        nonlocal seen
        seen += where.startswith("Predicting")
        if seen == 2:
            stopping.ask("a test")
        check(where)

    with monkeypatch.context() as patched:
        patched.setattr(stopping, "check", second_time)
        with pytest.raises(Stopped, match="Predicting after batch"):
            project.evaluate(bs=3)
    stopping.forget()
    manifest, metrics, *_ = project.evaluate(bs=3)
    assert manifest.metrics == headline(metrics)  # the first batches took no time in this process
