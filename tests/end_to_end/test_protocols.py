"""The same small table under both protocols: what is read, how it is labelled, and that each states the other."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command_line import call, manifest, write_reviews

from pipeline.artifact import open_artifact
from pipeline.report.evaluation_page import render
from pipeline.stage import STAGE_NAMES

STAGED = ("lm-fwd", "classifier-fwd", "evaluation")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A smaller table and shorter phases than the other tests have."""
    table = write_reviews(tmp_path_factory.mktemp("table") / "reviews.csv", n=160)
    return [
        "--recipe", "smoke", "--source", str(table), "--set", "prepare_corpus.split_column=split",
        "--set", "run.device=cpu", "--set", "run.precision=fp32", "--set", "tokenize_corpus.workers=1",
        "--set", "finetune_lm.phases=[{name='a', lr=0.01}]",
        "--set", "train_classifier.phases=[{name='a', lr=0.02, epochs=2}]",
    ]


@pytest.fixture(scope="module")
def honest(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a finished honest run."""
    home = tmp_path_factory.mktemp("honest")
    call("run", *arguments, "--home", str(home))
    return home


@pytest.fixture(scope="module")
def both(arguments: list[str], honest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the honest run and then the published one."""
    home = tmp_path_factory.mktemp("both") / "home"
    shutil.copytree(honest, home)
    call("run", *arguments, "--protocol", "published", "--home", str(home))
    return home


def metrics(home: Path, run: str, folder: str) -> dict[str, Any]:
    return manifest(home / "models" / run / folder)["metrics"]


def test_the_published_protocol_reads_what_the_notebooks_read(both: Path) -> None:
    corpus = pq.read_table(both / "data/smoke/corpus/documents.parquet")["split"].to_pylist()
    train, valid, test = (corpus.count(split) for split in ("train", "valid", "test"))
    honest, published = (metrics(both, run, "classifier-fwd") for run in ("smoke", "smoke-published"))
    assert (honest["train_documents"], honest["valid_documents"]) == (train, valid)
    assert (published["train_documents"], published["valid_documents"]) == (train + valid, test)
    more = metrics(both, "smoke-published", "lm-fwd")["train_tokens"] - metrics(both, "smoke", "lm-fwd")["train_tokens"]
    tokens = pq.read_table(both / "data/smoke/ids/documents.parquet").to_pylist()
    of_test = sum(row["n_tokens"] for row in tokens if row["split"] == "test")
    assert abs(more - of_test) < 8  # but for the ends of the eight streams


def test_every_number_made_that_way_is_labelled(both: Path) -> None:
    for folder in STAGED:
        assert metrics(both, "smoke", folder)["protocol"] == "honest"
        assert metrics(both, "smoke-published", folder)["protocol"] == "published"
    page = (both / "models/smoke-published/evaluation/evaluation.md").read_text(encoding="utf-8")
    assert ", published protocol) on 32 test documents" in page
    assert "> **Note.** These numbers follow the published protocol: the test documents, with their labels" in page
    assert "> **Note.** These numbers are transductive" in page
    assert "| this classifier (published protocol) |" in page
    assert "The language model was trained on the text of train and test. The classifier was trained on the labelled " \
        "documents of train and valid; the best epoch was chosen on test." in page
    honest = (both / "models/smoke/evaluation/evaluation.md").read_text(encoding="utf-8")
    assert "The language model was trained on the text of train. The classifier was" in honest
    status = call("status", "--run", "smoke-published", "--home", str(both)).stdout
    for stage in STAGE_NAMES[3:]:
        line = next(line for line in status.splitlines() if line.startswith(stage))
        assert ", published protocol " in line
    assert "published" not in call("status", "--run", "smoke", "--home", str(both)).stdout


def check_both_stated(home: Path) -> None:
    for run, other in (("smoke", "smoke-published"), ("smoke-published", "smoke")):
        sealed = open_artifact(home / "models" / run / "evaluation", "evaluation")
        theirs = manifest(home / "models" / other / "evaluation")
        found = json.loads(sealed.file("metrics.json").read_text(encoding="utf-8"))
        assert found["other_protocol"]["fingerprint"] == theirs["fingerprint"]
        assert found["other_protocol"]["accuracy"] == theirs["metrics"]["accuracy"]
        assert sealed.manifest.metrics["other_protocol"] == found["other_protocol"]
        page = sealed.file("evaluation.md").read_text(encoding="utf-8")
        assert page == render(found)
        name = "honest" if other == "smoke" else "published"
        assert f"| run {other} ({name} protocol) | {100 * theirs['metrics']['accuracy']:.2f} % |" in page
        assert f"The run {other} ({name} protocol) reaches {100 * theirs['metrics']['accuracy']:.2f} %" in page


def test_where_both_were_run_each_states_the_other(both: Path, honest: Path, arguments: list[str]) -> None:
    check_both_stated(both)
    before, after = (manifest(home / "models/smoke/evaluation") for home in (honest, both))
    assert "other_protocol" not in before["metrics"]
    assert after["fingerprint"] == before["fingerprint"]
    same = [name for name in before["files"] if before["files"][name] == after["files"][name]]
    assert same == ["predictions.parquet"]
    again = call("run", *arguments, "--home", str(both))
    assert again.output.count("nothing changed") == 6
    assert "states the" not in again.output
    assert "run smoke-published (published protocol)" in again.stdout
    check_both_stated(both)
    for run, other in (("smoke", "smoke-published (published"), ("smoke-published", "smoke (honest")):
        page = (both / "models" / run / "report/report.md").read_text(encoding="utf-8")
        found = metrics(both, run, "evaluation")["other_protocol"]["accuracy"]
        assert f"| run {other} protocol) | {100 * found:.2f} % |" in page
    assert "Accuracy on test (published protocol)" in page


def test_the_honest_run_may_come_second(both: Path, honest: Path, arguments: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(both, home)
    for kind in ("data", "models"):
        shutil.rmtree(home / kind / "smoke")
    call("run", *arguments, "--home", str(home))
    check_both_stated(home)


def test_an_addition_that_was_cut_off_is_made_by_the_same_command(
    both: Path, honest: Path, arguments: list[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(both, home)
    shutil.rmtree(home / "models/smoke/evaluation")
    shutil.copytree(honest / "models/smoke/evaluation", home / "models/smoke/evaluation")
    sealed = manifest(home / "models/smoke/evaluation")
    partial = home / "models/smoke/.evaluation.partial"
    (partial / "resume").mkdir(parents=True)
    (partial / "resume/attempt.json").write_text(json.dumps({"fingerprint": sealed["fingerprint"]}), encoding="utf-8")
    (partial / "half").write_text("half a copy", encoding="utf-8")
    done = call("run", *arguments, "--home", str(home))
    assert "models/smoke/evaluation states the published protocol too (smoke-published)" in done.output
    assert not partial.exists()
    assert set(manifest(home / "models/smoke/evaluation")["files"]) == set(sealed["files"])
    check_both_stated(home)


def test_an_honest_classifier_on_a_published_language_model_is_labelled(
    both: Path, arguments: list[str], tmp_path: Path
) -> None:
    call(
        "run", *arguments, "--home", str(tmp_path), "--run", "mixed",
        "--set", f"inputs.corpus={both / 'data/smoke-published/corpus'}",
        "--set", f"inputs.ids={both / 'data/smoke-published/ids'}",
        "--set", f"inputs.lm={both / 'models/smoke-published/lm-fwd'}",
    )
    classifier, evaluation = (metrics(tmp_path, "mixed", folder) for folder in STAGED[1:])
    for found in (classifier, evaluation):
        assert found["protocol"] == "published"
        assert (found["transductive"], found["validated_on"]) == (True, "valid")
    page = (tmp_path / "models/mixed/evaluation/evaluation.md").read_text(encoding="utf-8")
    assert "published protocol) on 32 test documents" in page
    assert "follow the published protocol" not in page  # the epoch was chosen honestly
    evaluations = [both / "models/smoke/evaluation", tmp_path / "models/mixed/evaluation"]
    refused = call(
        "evaluate_ensemble", *(word for path in evaluations for word in ("--evaluation", str(path))),
        "--output", str(tmp_path / "out"), exit_code=3,
    )
    assert (
        f"{evaluations[1]} was made under the published protocol, {evaluations[0]} under the honest one. Make all "
        "members under one: python -m pipeline run --run NAME --protocol honest"
    ) in refused.output


def test_a_model_started_from_a_published_one_is_labelled(both: Path, arguments: list[str], tmp_path: Path) -> None:
    call("run", *arguments, "--home", str(tmp_path), "--until", "finetune_lm",
         "--set", f"inputs.start_lm={both / 'models/smoke-published/lm-fwd'}")
    assert metrics(tmp_path, "smoke", "lm-fwd")["protocol"] == "published"
