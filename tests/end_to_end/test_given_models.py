"""A run on documents of its own whose models were made on others: each page says whose figures it shows."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import call, manifest, write_reviews

RUN = "elsewhere"


@pytest.fixture(scope="module")
def home(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the run smoke, and of a run that scores its classifier on a table of 120 documents."""
    home = tmp_path_factory.mktemp("given") / "home"
    shutil.copytree(finished, home)
    models = home / "models/smoke"
    call(
        "run", "--recipe", "smoke", "--run", RUN, "--home", str(home),
        "--source", str(write_reviews(home / "other.csv", n=120, seed=1)), "--set", "prepare_corpus.split_column=split",
        "--set", f"inputs.start_lm={models / 'lm-fwd'}", "--set", f"inputs.classifier={models / 'classifier-fwd'}",
        "--set", "run.device=cpu", "--set", "run.precision=fp32", "--set", "tokenize_corpus.workers=1",
    )
    return home


def test_the_report_has_the_data_of_the_run_and_not_of_its_models(home: Path) -> None:
    text = (home / f"models/{RUN}/report/report.md").read_text(encoding="utf-8")
    own = manifest(home / f"data/{RUN}/corpus")["metrics"]["documents"]
    assert own["test"] == 24
    assert re.search(rf"^\| train \| {own['train']} \|", text, re.MULTILINE)
    assert re.search(r"^\| test \| 24 \|", text, re.MULTILINE)
    for slot in ("corpus", "tokens", "ids"):
        mine, theirs = (manifest(home / "data" / run / slot)["fingerprint"][:12] for run in (RUN, "smoke"))
        assert re.search(rf"^\| {slot} \| {mine} \|", text, re.MULTILINE)
        assert re.search(rf"^\| \w+/{slot} \| {theirs} \|", text, re.MULTILINE)


def test_a_run_without_a_result_of_its_own_does_not_report_the_model_it_was_given(home: Path, tmp_path: Path) -> None:
    copied = tmp_path / "home"
    shutil.copytree(home, copied)
    shutil.rmtree(copied / f"models/{RUN}/evaluation")
    call("report", "--run", RUN, "--home", str(copied), "--output", str(tmp_path / "out"))
    text = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert re.search(r"^\| test \| 24 \|", text, re.MULTILINE)
    assert "Perplexity" not in text.partition("## ")[0]


def test_results_know_its_language_model_and_leave_out_what_others_took(home: Path) -> None:
    (found,) = json.loads(call("results", RUN, "--json", "--home", str(home)).stdout)
    assert found["how"] == "language model from scratch"
    assert found["language_model"] == manifest(home / "models/smoke/lm-fwd")["metrics"]
    assert [stage["role"] for stage in found["stages"]].count("corpus") == 1
    folder = str(home / f"models/{RUN}/evaluation")
    assert call("results", folder, "--home", str(home)).stdout.splitlines()[4].startswith(f"{RUN} ")


def test_the_evaluation_does_not_say_that_its_corpus_made_the_classifier(home: Path) -> None:
    text = (home / f"models/{RUN}/evaluation/evaluation.md").read_text(encoding="utf-8")
    assert "- The classifier was trained on another corpus. The baseline was fitted on the labelled documents" in text
    assert "The language model was trained on" not in text
    assert "It goes on from models that have read other texts, or only those." in text


def test_the_card_of_a_model_that_was_scored_elsewhere_tells_both_corpora_apart(home: Path, tmp_path: Path) -> None:
    call(
        "export", "--to", "huggingface", "--run", "smoke", "--home", str(home), "--output", str(tmp_path / "card"),
        "--evaluation", str(home / f"models/{RUN}/evaluation"),
    )
    text = (tmp_path / "card/README.md").read_text(encoding="utf-8")
    trained_on = manifest(home / "data/smoke/corpus")["metrics"]["documents"]["train"]
    assert f"| documents, train | {trained_on} |" in text
    assert "measured on documents other than those it was trained on" in text
    assert text.count("language model, perplexity on validation") == 1
    shutil.copytree(home, tmp_path / "home")
    shutil.rmtree(tmp_path / f"home/data/{RUN}/corpus")
    call(
        "export", "--to", "huggingface", "--run", "smoke", "--home", str(tmp_path / "home"), "--output",
        str(tmp_path / "gone"), "--evaluation", str(tmp_path / f"home/models/{RUN}/evaluation"),
    )
    text = (tmp_path / "gone/README.md").read_text(encoding="utf-8")
    assert "measured on documents other than those it was trained on (not at hand)" in text
