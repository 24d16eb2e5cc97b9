"""Evaluated runs side by side: the figures are those of the manifests, and only runs of one corpus are compared."""

import json
from pathlib import Path

import pytest
from command_line import call, manifest, write_reviews

NO_LM = ("--set", "train_classifier.encoder=random", "--set", "train_classifier.phases=[{name='a', lr=0.01}]")


@pytest.fixture(scope="module")
def home(finished: Path, arguments: list[str]) -> Path:
    """Home of the run smoke, of one that starts from its language model, and of one without any."""
    start = f"inputs.start_lm={finished / 'models/smoke/lm-fwd'}"
    call("run", *arguments, "--home", str(finished), "--run", "again", "--set", start)
    call("run", *arguments, "--home", str(finished), "--run", "none", *NO_LM)
    return finished


def test_each_run_stands_in_a_row_with_what_it_started_from(home: Path) -> None:
    lines = call("results", "smoke", "again", "none", "--home", str(home)).stdout.splitlines()
    assert lines[2].startswith("majority class")
    assert lines[3].startswith("TF-IDF + logistic regression")
    started = ("language model from scratch", "fine-tuned from models/smoke/lm-fwd", "no language model")
    for line, run, how in zip(lines[4:7], ("smoke", "again", "none"), started, strict=True):
        accuracy = manifest(home / "models" / run / "evaluation")["metrics"]["accuracy"]
        assert line.startswith(f"{run} ")
        assert f" {how} " in line
        assert f" {100 * accuracy:.2f} % " in line
    assert lines[7:] == ["72 test documents"]


def test_json_holds_the_manifests_figures_and_what_each_stage_took(home: Path) -> None:
    (found,) = json.loads(call("results", str(home / "models/again/evaluation"), "--json", "--home", str(home)).stdout)
    for key, folder in (("metrics", "evaluation"), ("language_model", "lm-fwd"), ("classifier", "classifier-fwd")):
        assert found[key] == manifest(home / "models/again" / folder)["metrics"]
    roles = {"corpus": "data", "tokens": "data", "ids": "data", "lm": "models", "classifier": "models",
             "evaluation": "models"}
    assert [stage["role"] for stage in found["stages"]] == list(roles)  # of its start, none
    for stage in found["stages"]:
        folder = stage["role"] + ("-fwd" if stage["role"] in ("lm", "classifier") else "")
        assert stage["wall_s"] == manifest(home / roles[stage["role"]] / "again" / folder)["wall_s"]


def test_runs_of_different_documents_are_not_compared(home: Path, tmp_path: Path) -> None:
    table = write_reviews(tmp_path / "other.csv", n=120, seed=1)
    call(
        "run", "--recipe", "smoke", "--run", "other", "--source", str(table), "--home", str(home),
        "--set", "prepare_corpus.split_column=split", "--set", "run.device=cpu", *NO_LM,
    )
    refused = call("results", "smoke", "other", "--home", str(home), exit_code=2)
    assert "smoke and other were evaluated on different documents" in refused.stderr


def test_a_run_without_an_evaluation_is_named(home: Path) -> None:
    refused = call("results", "smoke", "nobody", "--home", str(home), exit_code=3)
    assert "nobody is no run" in refused.stderr
    assert "python -m pipeline run --run nobody" in refused.stderr
