"""The model that ships: small, sealed, without a trace of the machine, there without a run, and as good as it says."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import ROOT, call, manifest

from pipeline.artifact import open_artifact
from pipeline.pretrained import DEFAULT_MODEL, shipped_models
from pipeline.recipe import load_recipe
from pipeline.report.summary import percent

MODEL = ROOT / "models" / "pretrained" / DEFAULT_MODEL
PARTS = ("lm-fwd", "classifier-fwd", "evaluation")
STORAGE = "int8"
MAX_MB = 20
BACKWARD = MODEL.with_name(f"{DEFAULT_MODEL}-bwd")
BACKWARD_PARTS = ("lm-bwd", "classifier-bwd", "evaluation")
BOTH = "reviews-small-both"
WARM, DULL = "A warm, witty film that never drags.", "A dull, lifeless mess. I wanted my money back."


def test_it_ships_in_at_most_20_mb() -> None:
    assert shipped_models()[DEFAULT_MODEL] == MODEL
    assert sum(path.stat().st_size for path in MODEL.rglob("*")) < MAX_MB * 1e6
    assert {path.name for path in MODEL.iterdir()} == {"README.md", *PARTS}


@pytest.mark.parametrize(
    "folder", [*(MODEL / name for name in PARTS), *(BACKWARD / name for name in BACKWARD_PARTS)],
    ids=lambda folder: f"{folder.parent.name}-{folder.name}",
)
def test_it_is_sealed_and_names_no_machine(folder: Path) -> None:
    made = open_artifact(folder, folder.name.partition("-")[0]).manifest
    assert not made.host
    assert made.git_dirty is False
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    assert not re.findall(r'"(?:/|[A-Z]:\\)[^"]*"', text), "a path of the machine it was made on"
    assert made.metrics.get("storage", STORAGE) == STORAGE


def test_the_card_of_the_backward_models_says_how_to_use_them(tmp_path: Path) -> None:
    card = (BACKWARD / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^    python -m pipeline (.*)", card, re.MULTILINE)]
    predict, generate, run = commands
    assert json.loads(call(*predict, "--home", str(tmp_path)).stdout)["label"] == "pos"
    assert generate[-1] in call(*generate, "--max-tokens", "10", "--home", str(tmp_path)).stdout
    call(*run, "--until", "numericalize_corpus", "--home", str(tmp_path))
    vocabulary = manifest(BACKWARD / "lm-bwd")["identity"]["vocabulary"]
    assert manifest(tmp_path / "data/again/ids")["identity"]["vocabulary"] == vocabulary


def test_both_language_models_are_about_as_good() -> None:
    forwards, backwards = (manifest(folder)["metrics"] for folder in (MODEL / "lm-fwd", BACKWARD / "lm-bwd"))
    assert abs(forwards["perplexity"] - backwards["perplexity"]) < 1


def test_the_ensemble_of_both_directions_is_as_good_as_the_results_say(tmp_path: Path) -> None:
    places = ("--output", str(tmp_path / BOTH), "--home", str(tmp_path))
    call("evaluate_ensemble", "--evaluation", DEFAULT_MODEL, "--evaluation", BACKWARD.name, *places)
    told = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))["sections"]["imdb"]
    (accuracy,) = (row["metrics"]["accuracy"] for row in told if row["slot"] == "ensemble")
    assert manifest(tmp_path / BOTH)["metrics"]["accuracy"] == accuracy


@pytest.mark.parametrize(
    ("model", "parts", "direction"), [(MODEL, PARTS, "fwd"), (BACKWARD, BACKWARD_PARTS, "bwd")], ids=("fwd", "bwd")
)
def test_its_parts_belong_together(model: Path, parts: tuple[str, ...], direction: str) -> None:
    lm, classifier, evaluation = (manifest(model / name) for name in parts)
    assert classifier["identity"] == lm["identity"]
    assert lm["identity"]["direction"] == direction
    assert evaluation["inputs"]["classifier"]["fingerprint"] == classifier["fingerprint"]
    assert evaluation["metrics"]["test_documents"] == 25_000
    recipe = load_recipe("imdb-cpu")
    for made, section in ((lm, "finetune_lm"), (classifier, "train_classifier")):
        assert made["settings"][section] == getattr(recipe, section).affecting_output()


@pytest.mark.parametrize(("model", "parts"), [(MODEL, PARTS), (BACKWARD, BACKWARD_PARTS)], ids=("fwd", "bwd"))
def test_its_card_has_the_figures_of_its_evaluation(model: Path, parts: tuple[str, ...]) -> None:
    card, metrics = (model / "README.md").read_text(encoding="utf-8"), manifest(model / "evaluation")["metrics"]
    assert f"**Accuracy {percent(metrics['accuracy'])}**" in card
    for name in parts[:2]:
        for file, record in manifest(model / name)["files"].items():
            if file.endswith(".safetensors"):
                assert f"| {name}/{file} | {STORAGE} | `{record['sha256']}` |" in card


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_is_no_defect(closed: str) -> None:
    command = f"'{sys.executable}' -m pipeline predict '{WARM}' {closed}"
    done = subprocess.run(["bash", "-c", command], check=True, cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert (json.loads(done.stdout)["label"] == "pos") if closed != ">&-" else not done.stdout


def test_commands_need_no_run_and_no_name_of_a_model(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    answers = [json.loads(line) for line in call("predict", WARM, DULL, *home).stdout.splitlines()]
    assert [answer["label"] for answer in answers] == ["pos", "neg"]
    assert "This film is" in call("generate", "This film is", "--max-tokens", "10", *home).stdout
    assert "witty" in call("explain", WARM, *home).stdout
    assert len(call("neighbours", "--word", "good", "--top", "3", *home).stdout.splitlines()) == 3
    (tmp_path / "texts.txt").write_text(f"{WARM}\n{DULL}\n", encoding="utf-8")
    call("embed", "--input", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "vectors.npy"), *home)
    emb_sz = manifest(MODEL / "lm-fwd")["settings"]["finetune_lm"]["emb_sz"]
    assert np.load(tmp_path / "vectors.npy").shape == (2, 3 * emb_sz)


def test_results_and_export_know_it_by_its_name(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    accuracy = percent(manifest(MODEL / "evaluation")["metrics"]["accuracy"])
    row = rf"^{DEFAULT_MODEL} +language model from scratch +{accuracy} +[\d.]+ to [\d.]+ %$"
    assert re.search(row, call("results", DEFAULT_MODEL, *home).stdout, re.MULTILINE), "and no time: packing took that"
    for to, file in (("huggingface", "model.safetensors"), ("fastai", "lm_fwd.pth")):
        call("export", "--to", to, "--run", DEFAULT_MODEL, *home, "--output", str(tmp_path / to))
        assert (tmp_path / to / file).exists()
    assert "has no sealed classifier" in call(
        "export", "--to", "huggingface", "--run", "nobody", *home, "--output", str(tmp_path / "no"), exit_code=3
    ).stderr


def test_an_export_of_it_says_what_its_weights_are_stored_in(tmp_path: Path) -> None:
    for option, folder in (("--classifier", "classifier-fwd"), ("--lm", "lm-fwd")):
        output = tmp_path / folder
        call("export", "--to", "huggingface", option, str(MODEL / folder), "--output", str(output))
        assert json.loads((output / "config.json").read_text(encoding="utf-8"))["dtype"] == STORAGE
        card = (output / "README.md").read_text(encoding="utf-8")
        assert f"in {STORAGE} (vectors and small matrices in float32); `config.json`" in card


def test_sample_starts_from_it_and_sample_word_from_nothing() -> None:
    assert load_recipe("sample").inputs.start_lm == DEFAULT_MODEL
    assert load_recipe("sample-word").inputs.start_lm is None


def test_every_file_of_it_is_package_data() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["pipeline.pretrained_models"]
    packed = {path for pattern in patterns for path in MODEL.parent.glob(pattern)}
    assert {path for path in MODEL.rglob("*") if path.is_file()} <= packed


@pytest.mark.slow
def test_a_wheel_carries_it(tmp_path: Path) -> None:
    """Built from a copy: setuptools leaves folders beside what it builds."""
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "pipeline", "models", "pyproject.toml", "README.md", "LICENSE"],
        capture_output=True, check=True, text=True,
    ).stdout.split("\0")
    for name in filter(None, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)], check=True,
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "predict", DULL], cwd=tmp_path / "installed", capture_output=True,
        check=True, text=True,
    )
    assert json.loads(done.stdout)["label"] == "neg"
    assert "pipeline/pretrained_models" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_its_files_alone_give_its_predictions_to_the_last_document(shared_data: Path, tmp_path: Path) -> None:
    call(
        "run", "--recipe", "imdb-cpu", "--source", str(shared_data / "aclImdb_v1.tar.gz"), "--home", str(tmp_path),
        "--set", f"inputs.start_lm={DEFAULT_MODEL}", "--set", f"inputs.classifier={DEFAULT_MODEL}", "--set",
        "run.precision=fp32", "--set", "evaluate_classifier.baseline=false",
    )
    ours, theirs = (
        pq.read_table(folder / "predictions.parquet").to_pydict()
        for folder in (MODEL / "evaluation", tmp_path / "models/imdb-cpu/evaluation")
    )
    assert ours["doc_id"] == theirs["doc_id"]
    assert ours["predicted"] == theirs["predicted"]
