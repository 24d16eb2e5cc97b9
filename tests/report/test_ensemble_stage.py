"""pipeline.stages.evaluate_ensemble on sealed evaluations."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics
from scipy.stats import binom
from test_evaluate_stage import seal

from pipeline import artifact as artifacts
from pipeline.artifact import Artifact, InputRecord
from pipeline.errors import InputError
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.report import metrics as scores
from pipeline.report.ensemble_page import render
from pipeline.stage import ENSEMBLE, Run, run_stage
from pipeline.stages.evaluate_ensemble import FIGURES, ensemble_headline

N = 300
LABELS = ["bad", "fair|er", "good"]
DOC_IDS = [f"test/{(7 * i) % N}" for i in range(N)]
TRUTH = np.random.default_rng(0).integers(3, size=N)
BASELINE = np.where(np.random.default_rng(1).random(N) < 0.6, TRUTH, (TRUTH + 1) % 3)


def draw(seed: int, skill: float = 1.5) -> np.ndarray:
    """Probabilities [N, 3] of a classifier that is right more often than not."""
    weights = np.exp(np.random.default_rng(seed).normal(size=(N, 3)) + skill * np.eye(3)[TRUTH])
    return scores.normalized(weights / weights.sum(axis=1, keepdims=True))


def seal_evaluation(
    home: Path, name: str, probabilities: np.ndarray, *, labels: list[str] = LABELS, doc_ids: list[str] = DOC_IDS,
    truth: np.ndarray = TRUTH, baseline: bool = True, baseline_ids: np.ndarray = BASELINE, transductive: bool = False,
    corpus: str = "c" * 64,
) -> Path:
    """The evaluation of a run `name`, as evaluate_classifier writes it."""
    scored = {
        **scores.score(truth, probabilities, labels, bootstrap_samples=200, calibration_bins=10, seed=1),
        "labels": labels, "test_documents": len(doc_ids), "majority_label": "bad", "majority_accuracy": 0.4,
        "classifier": {"direction": "bwd", "tokenizer": "word", "vocabulary": 1234, "seed": 5},
        "protocol": {
            "transductive": transductive, "validated_on": "valid", "language_model_known": True,
            "classifier_trained_on_this_split": True,
            "documents": {"train": 9, "test": N}, "test_documents_without_label": 0, "duplicates": {},
        },
    }
    names = np.array(labels, dtype=object)
    columns: dict[str, Any] = {"doc_id": doc_ids, "label": pa.array(names[truth], pa.string())}
    if baseline:
        eye = scores.normalized(np.eye(3)[baseline_ids])
        scored["baseline"] = {
            "name": "TF-IDF", **scores.score(truth, eye, labels, bootstrap_samples=200, calibration_bins=10, seed=1)
        }
        columns["baseline_predicted"] = pa.array(names[baseline_ids], pa.string())
    columns |= {f"probability_{label}": probabilities[:, i] for i, label in enumerate(labels)}

    def files(folder: Path) -> None:
        (folder / "metrics.json").write_text(json.dumps(scored), encoding="utf-8")
        pq.write_table(pa.table(columns), folder / "predictions.parquet")

    path = home / "models" / name / "evaluation"
    seal(path, "evaluation", files, identity={"corpus": corpus}, settings={"name": {"is": name}},
         inputs={"corpus": InputRecord(path="data/a/corpus", fingerprint=corpus)})
    return path


def ensemble_of(home: Path, members: dict[str, Path], **settings: Any) -> Artifact:
    recipe = Recipe.model_validate({"evaluate_ensemble": {"bootstrap_samples": 500, **settings}})
    return run_stage(Run("together", recipe, home, (), members), ENSEMBLE, Reporter(io.StringIO()))


def read(ensemble: Artifact) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
    return (
        json.loads(ensemble.file("metrics.json").read_text(encoding="utf-8")),
        ensemble.file("ensemble.md").read_text(encoding="utf-8"),
        pq.read_table(ensemble.file("predictions.parquet")).to_pylist(),
    )


@pytest.fixture
def members(tmp_path: Path) -> dict[str, Path]:
    return {
        name: seal_evaluation(tmp_path, name, draw(seed), baseline=name != "first")
        for name, seed in (("first", 2), ("second", 3), ("third", 4))
    }


def test_the_ensemble_is_the_mean_of_its_members(tmp_path: Path, members: dict[str, Path]) -> None:
    sealed = ensemble_of(tmp_path, members)
    metrics, _, rows = read(sealed)
    assert set(sealed.manifest.files) == {"metrics.json", "predictions.parquet", "ensemble.md"}
    assert sealed.path == tmp_path / "models/together/ensemble"
    mean = (draw(2) + draw(3) + draw(4)) / 3
    found = np.array([[row[f"probability_{label}"] for label in LABELS] for row in rows])
    assert found == pytest.approx(mean, abs=1e-15)
    predicted = mean.argmax(axis=1)
    assert [row["predicted"] for row in rows] == [LABELS[i] for i in predicted]
    assert [row["doc_id"] for row in rows] == DOC_IDS
    assert [row["predicted_by_second"] for row in rows] == [LABELS[i] for i in draw(3).argmax(axis=1)]
    assert metrics["accuracy"] == sklearn.metrics.accuracy_score(TRUTH, predicted)
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    assert metrics["log_loss"] == pytest.approx(sklearn.metrics.log_loss(TRUTH, mean))
    assert metrics["accuracy"] > max(m["accuracy"] for m in metrics["members"])  # independent members: it must help
    assert sealed.manifest.metrics == ensemble_headline(metrics)
    assert sealed.manifest.identity == {"corpus": "c" * 64}


def test_every_member_is_reported_as_in_its_own_evaluation(tmp_path: Path, members: dict[str, Path]) -> None:
    metrics, page, _ = read(ensemble_of(tmp_path, members))
    assert [m["name"] for m in metrics["members"]] == list(members)
    for member in metrics["members"]:
        own = json.loads((members[member["name"]] / "metrics.json").read_text(encoding="utf-8"))
        assert {key: member[key] for key in FIGURES} == {key: own[key] for key in FIGURES}
        assert {key: member[key] for key in own["classifier"]} == own["classifier"]
        assert f"| {member['name']} | {100 * own['accuracy']:.2f} % |" in page
        assert f"| {member['name']} | bwd | word | 1,234 | 5 |" in page
    best = max(metrics["members"], key=lambda m: m["accuracy"])
    assert metrics["best_member"] == best["name"]


def test_significance_is_mcnemars_exact_test(tmp_path: Path, members: dict[str, Path]) -> None:
    """Against the baseline, which only some of the evaluations have, and against every member."""
    metrics, page, rows = read(ensemble_of(tmp_path, members))
    truth = np.array([row["label"] for row in rows])

    def right(column: str) -> np.ndarray:
        return np.array([row[column] for row in rows]) == truth

    def exact(b: int, c: int) -> float:
        return float(min(1.0, 2 * binom.cdf(min(b, c), b + c, 0.5)))

    def test_of(one: np.ndarray, other: np.ndarray) -> list[Any]:
        b, c = int((one & ~other).sum()), int((~one & other).sum())
        assert b + c > 5
        return [b, c, pytest.approx(exact(b, c))]

    ensemble, baseline = right("predicted"), right("baseline_predicted")
    assert list(metrics["mcnemar"].values()) == test_of(ensemble, baseline)
    assert metrics["mcnemar"]["p"] < 0.05
    for member in metrics["members"]:
        theirs = right(f"predicted_by_{member['name']}")
        assert list(member["against_ensemble"].values()) == test_of(ensemble, theirs)
        assert list(member["mcnemar"].values()) == test_of(theirs, baseline)
    best = next(m for m in metrics["members"] if m["name"] == metrics["best_member"])
    only_ours, only_theirs, p = best["against_ensemble"].values()
    assert f"| ensemble and {best['name']} (best member) | {only_ours} | {only_theirs} | {p:.2g} |" in page
    assert f"| ensemble and TF-IDF | {metrics['mcnemar']['only_classifier_right']} |" in page


def test_the_page_says_what_the_json_says(tmp_path: Path, members: dict[str, Path]) -> None:
    metrics, page, _ = read(ensemble_of(tmp_path, members))
    assert page == render(metrics)
    assert page.startswith(f"# Ensemble of 3\n\n**Accuracy {100 * metrics['accuracy']:.2f} %**")
    assert f"| **ensemble** | {100 * metrics['accuracy']:.2f} % |" in page
    assert "fair\\|er" in page
    assert "**Note.**" not in page
    for name, path in members.items():
        fingerprint = artifacts.open_artifact(path, "evaluation").manifest.fingerprint
        assert f"| evaluation of {name} | `{fingerprint[:12]}` |" in page


def test_what_one_member_has_read_the_ensemble_has(tmp_path: Path, members: dict[str, Path]) -> None:
    members["fourth"] = seal_evaluation(tmp_path, "fourth", draw(5), transductive=True)
    sealed = ensemble_of(tmp_path, members)
    assert sealed.manifest.metrics["transductive"] is True
    assert sealed.manifest.metrics["protocol"] == "published"
    assert "| **ensemble** (published protocol) |" in read(sealed)[1]
    assert "> **Note.** These numbers are transductive" in read(sealed)[1]


def test_without_any_baseline(tmp_path: Path) -> None:
    members = {name: seal_evaluation(tmp_path, name, draw(seed), baseline=False) for name, seed in (("a", 2), ("b", 3))}
    sealed = ensemble_of(tmp_path, members)
    metrics, page, rows = read(sealed)
    assert not {"baseline", "mcnemar"} & set(metrics)
    assert "baseline_predicted" not in rows[0]
    assert "TF-IDF" not in page
    assert "mcnemar_p" not in sealed.manifest.metrics
    assert sealed.manifest.metrics["members"]["a"]["mcnemar_p"] <= 1.0


def test_the_order_of_the_members_does_not_change_the_numbers(tmp_path: Path, members: dict[str, Path]) -> None:
    forwards = ensemble_of(tmp_path, members).manifest.metrics
    turned = dict(reversed(members.items()))
    elsewhere = Run("turned", Recipe.model_validate({"evaluate_ensemble": {"bootstrap_samples": 500}}), tmp_path, (),
                    turned, tmp_path / "elsewhere")
    backwards = run_stage(elsewhere, ENSEMBLE, Reporter(io.StringIO()))
    assert backwards.path == tmp_path / "elsewhere"
    assert backwards.manifest.metrics == forwards


def test_the_strongest_baseline_of_the_members_has_to_be_beaten(tmp_path: Path) -> None:
    better = np.where(np.random.default_rng(2).random(N) < 0.9, TRUTH, (TRUTH + 1) % 3)
    members = {"few": seal_evaluation(tmp_path, "few", draw(2)),
               "many": seal_evaluation(tmp_path, "many", draw(3), baseline_ids=better)}
    metrics, _, _ = read(ensemble_of(tmp_path, members))
    assert metrics["baseline"]["accuracy"] == np.mean(better == TRUTH) > np.mean(BASELINE == TRUTH)


def test_another_member_is_another_ensemble(tmp_path: Path, members: dict[str, Path]) -> None:
    ensemble_of(tmp_path, members)
    members["third"] = seal_evaluation(tmp_path, "other", draw(6))
    with pytest.raises(InputError, match=r"ensemble was made with other settings: its input changed\."):
        ensemble_of(tmp_path, members)
    del members["third"]
    with pytest.raises(InputError, match=r"input member third was used"):
        ensemble_of(tmp_path, members)


def test_other_labels_are_refused(tmp_path: Path, members: dict[str, Path]) -> None:
    members["odd"] = seal_evaluation(tmp_path, "odd", draw(6), labels=["bad", "fair", "good"])
    expected = (
        r"models/odd/evaluation and .*models/first/evaluation have other labels: number 2 is 'fair' in the one, "
        r"'fair\|er' in the other\. .*python -m pipeline evaluate_classifier --run odd --force"
    )
    with pytest.raises(InputError, match=expected):
        ensemble_of(tmp_path, members)


def test_other_documents_are_refused(tmp_path: Path, members: dict[str, Path]) -> None:
    members["odd"] = seal_evaluation(tmp_path, "odd", draw(6), doc_ids=[*DOC_IDS[1:], DOC_IDS[0]])
    expected = r"models/odd/evaluation and .* scored other test documents: number 1 is 'test/7' in the one, 'test/0'"
    with pytest.raises(InputError, match=expected):
        ensemble_of(tmp_path, members)


def test_other_classes_of_the_same_documents_are_refused(tmp_path: Path, members: dict[str, Path]) -> None:
    truth = np.append(TRUTH[:-1], (TRUTH[-1] + 1) % 3)
    members["odd"] = seal_evaluation(tmp_path, "odd", draw(6), truth=truth)
    with pytest.raises(InputError, match=rf"have other labels for {DOC_IDS[-1]}: '.*' in the one, '.*' in the other"):
        ensemble_of(tmp_path, members)


def test_another_corpus_is_refused(tmp_path: Path, members: dict[str, Path]) -> None:
    members["odd"] = seal_evaluation(tmp_path, "odd", draw(6), corpus="9" * 64)
    with pytest.raises(InputError, match=r"odd/evaluation was scored on corpus 9{12}, .*first/evaluation on c{12}\."):
        ensemble_of(tmp_path, members)


def test_a_member_that_is_not_there_names_the_command(tmp_path: Path, members: dict[str, Path]) -> None:
    members["absent"] = tmp_path / "models/absent/evaluation"
    with pytest.raises(InputError, match=r"evaluate_ensemble needs .*absent/evaluation, which is not there or not "
                       r"sealed\. Make it first: python -m pipeline run$"):
        ensemble_of(tmp_path, members)
