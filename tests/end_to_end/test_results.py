"""Evaluated runs side by side: the figures are those of the manifests, and only runs of one corpus are compared."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from command_line import call, manifest, write_reviews

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import update_results

NO_LM = ("--set", "train_classifier.encoder=random", "--set", "train_classifier.phases=[{name='a', lr=0.01}]")


@pytest.fixture(scope="module")
def home(finished: Path, arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the run smoke, of one that starts from its language model, and of one without any."""
    home = tmp_path_factory.mktemp("results") / "home"
    shutil.copytree(finished, home)
    start = f"inputs.start_lm={home / 'models/smoke/lm-fwd'}"
    call("run", *arguments, "--home", str(home), "--run", "again", "--set", start)
    call("run", *arguments, "--home", str(home), "--run", "none", *NO_LM)
    return home


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


def test_the_evaluation_of_random_weights_speaks_of_no_language_model(home: Path) -> None:
    page = (home / "models/none/evaluation/evaluation.md").read_text(encoding="utf-8")
    assert "There is no language model behind it. The classifier was trained on the labelled documents of train" in page


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


def test_the_page_of_results_says_what_was_recorded(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, file in (("RECORDS", "r.json"), ("PAGE", "r.md"), ("PICTURE", "few.svg")):
        monkeypatch.setattr(update_results, name, tmp_path / file)

    def update(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["update_results.py", *arguments, "--home", str(home)])
        update_results.main()

    for section, run, what in (("sample", "smoke", "from scratch"), ("few-labels", "smoke", ""),
                               ("few-labels", "none", ""), ("sample", "smoke", "once more"),
                               ("ablations", "none", "from nothing")):
        update("--record", section, run, "--what", what)
    page = (tmp_path / "r.md").read_text(encoding="utf-8")
    metrics, took = (manifest(home / "models/smoke" / name) for name in ("evaluation", "lm-fwd"))
    accuracy = f"{100 * metrics['metrics']['accuracy']:.2f} %"
    assert page.count("`smoke`: once more |") == 1  # the later record takes the place of the earlier one
    assert "from scratch" not in page
    assert f"| `smoke`: once more | {accuracy} |" in page
    perplexities = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in page.splitlines()
                    if line.startswith("| `")}
    assert float(perplexities["`smoke`: once more"]) > 1
    assert perplexities["`none`: from nothing"] == ""  # its classifier has nothing of its language model
    assert f"| lm | {round(took['wall_s']) // 60}:{round(took['wall_s']) % 60:02d} |" in page
    n_labelled = manifest(home / "models/smoke/classifier-fwd")["metrics"]
    labelled = n_labelled["train_documents"] + n_labelled["valid_documents"]
    without = f"{100 * manifest(home / 'models/none/evaluation')['metrics']['accuracy']:.2f} %"
    assert f"| {labelled} | {accuracy} | {without} | " in page
    assert "python -m pipeline run --recipe smoke" in page
    assert str(home) not in page
    assert "with the language model" in (tmp_path / "few.svg").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as current:
        update("--check")
    assert current.value.code == 0
    (tmp_path / "r.md").write_text(page.replace(accuracy, "99.99 %"), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"results\.md is stale"):
        update("--check")
    with pytest.raises(SystemExit):
        update("--record", "elsewhere", "smoke")
    assert "there is no section elsewhere" in capsys.readouterr().err
