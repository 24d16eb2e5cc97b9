"""Schedules through the command line: everything on at once, the rate finder, and reading backwards."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import call, manifest

from pipeline.artifact import hash_folder
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.progress import Reporter
from pipeline.recipe import load_recipe
from pipeline.settings import RunSettings
from pipeline.stage import Run, StageContext, open_inputs, stage_named
from pipeline.stages import finetune_lm
from pipeline.text.ids import IdStore
from pipeline.training.averaging import validated
from pipeline.training.phases import make_learner
from pipeline.training.precision import MixedPrecision

EVERYTHING = {
    "run.direction": "bwd",
    "finetune_lm.accumulate": "2", "finetune_lm.bs": "4", "finetune_lm.random_seq_len": "true",
    "finetune_lm.average_epochs": "2", "finetune_lm.phases.1.schedule": "slanted-triangular",
    "finetune_lm.phases.1.epochs": "3", "finetune_lm.phases.1.patience": "2",
    "train_classifier.accumulate": "2", "train_classifier.bs": "4", "train_classifier.average_epochs": "2",
    "train_classifier.lm_loss_weight": "0.2", "train_classifier.adversarial": "0.02",
    "train_classifier.virtual_adversarial": "0.02", "train_classifier.phases.1.schedule": "flat-cosine",
    "train_classifier.phases.1.patience": "3",
}


@pytest.fixture(scope="module")
def backwards(tmp_path_factory: pytest.TempPathFactory, arguments: list[str]) -> Path:
    """Home of a run that reads backwards, with all that schedules can do."""
    home = tmp_path_factory.mktemp("backwards")
    changes = [word for key, value in EVERYTHING.items() for word in ("--set", f"{key}={value}")]
    call("run", *arguments, "--home", str(home), *changes)
    return home


def texts_of(home: Path, split: str) -> tuple[list[str], list[str]]:
    documents = pq.read_table(home / "data/smoke/corpus/documents.parquet").to_pylist()
    chosen = [d for d in documents if d["split"] == split]
    return [d["text"] for d in chosen], [d["label"] for d in chosen]


def test_the_manifests_say_which_weights_were_sealed(backwards: Path) -> None:
    lm, classifier = (manifest(backwards / "models/smoke" / name) for name in ("lm-bwd", "classifier-bwd"))
    history = [json.loads(line) for line in (backwards / "models/smoke/lm-bwd/history.jsonl").read_text().splitlines()]
    assert lm["metrics"]["weights"] == f"mean of epochs {len(history) - 1} to {len(history)}"
    assert lm["metrics"]["valid_loss"] not in [r["valid_loss"] for r in history]
    metrics = classifier["metrics"]
    assert set(metrics["average"]) == {"accuracy", "valid_loss"}
    if metrics["weights"].startswith("mean"):
        assert metrics["average"]["accuracy"] == metrics["accuracy"]
    else:
        assert metrics["weights"] == f"epoch {metrics['best_epoch']}"
    assert not (backwards / "models/smoke/classifier-bwd/decoder.safetensors").exists()
    assert metrics["accuracy"] > 0.8


def test_a_backward_classifier_predicts_what_training_measured(backwards: Path) -> None:
    folder = backwards / "models/smoke/classifier-bwd"
    bundle = load_classifier_bundle(folder, RunSettings(precision="fp32", device="cpu"))
    texts, labels = texts_of(backwards, "valid")
    probabilities = bundle.predict(texts)
    right = np.array([bundle.labels.index(label) for label in labels])
    metrics = manifest(folder)["metrics"]
    assert len(texts) == metrics["valid_documents"]
    assert (probabilities.argmax(1) == right).mean() == pytest.approx(metrics["accuracy"])
    loss = -np.log(probabilities[np.arange(len(right)), right]).mean()
    assert loss == pytest.approx(metrics["valid_loss"], rel=1e-4)


def test_a_backward_language_model_reads_every_document_from_its_end(backwards: Path, arguments: list[str]) -> None:
    recipe = load_recipe("smoke", ["run.direction=bwd", "run.device=cpu", "finetune_lm.bs=1"])
    run, stage = Run("smoke", recipe, backwards), stage_named("finetune_lm")
    inputs = open_inputs(run, stage)
    context = StageContext(recipe, recipe.finetune_lm, inputs, None, "", backwards, False, Reporter())
    store = IdStore.open(inputs["ids"])
    task = finetune_lm.prepare(context).task
    train, valid = store.documents("train", "unlabelled"), store.documents("valid")
    for loader, documents in ((task.train, train), (task.valid, valid)):
        order = documents[loader.order(0)]  # type: ignore[union-attr]
        expected = np.concatenate([store.document(int(i))[::-1] for i in order])
        read = np.concatenate([x[0].numpy() for x, _ in loader.batches(0)])
        assert np.array_equal(read, expected[: len(read)])
        assert len(read) > 100


def test_with_patience_the_language_model_is_that_of_the_best_epoch(
    finished: Path, arguments: list[str], tmp_path: Path
) -> None:
    worse = ["finetune_lm.phases.0.epochs=2", "finetune_lm.phases.0.patience=1", "finetune_lm.phases.1.lr=300"]
    changes = [f"inputs.ids={finished / 'data/smoke/ids'}", *worse]
    call(
        "run", *arguments, "--home", str(tmp_path), "--until", "finetune_lm",
        *(word for change in changes for word in ("--set", change)),
    )
    folder = tmp_path / "models/smoke/lm-fwd"
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    best = min(history, key=lambda record: record["valid_loss"])
    metrics = manifest(folder)["metrics"]
    assert best["epoch"] < history[-1]["epoch"] == metrics["epochs"]
    assert (metrics["weights"], metrics["valid_loss"]) == (f"epoch {best['epoch']}", best["valid_loss"])

    recipe = load_recipe("smoke", ["run.device=cpu", "run.precision=fp32"])
    inputs = open_inputs(Run("smoke", recipe, finished), stage_named("finetune_lm"))
    context = StageContext(recipe, recipe.finetune_lm, inputs, None, "", tmp_path, False, Reporter())
    prepared = finetune_lm.prepare(context)
    prepared.task.load(folder)
    learn = make_learner(prepared.task, recipe.finetune_lm, prepared.device, [MixedPrecision(prepared.device)])
    assert validated(learn, prepared.task)["valid_loss"] == pytest.approx(best["valid_loss"])


def test_find_lr_suggests_a_rate_and_changes_no_artifact(finished: Path, arguments: list[str], tmp_path: Path) -> None:
    before = {slot: hash_folder(finished / slot) for slot in ("data/smoke/ids", "models/smoke/lm-fwd")}
    recipe = [*arguments[:2], *arguments[4:], "--home", str(finished)]
    source = ["--set", f"prepare_corpus.source={arguments[3]}"]
    found = call("find-lr", "finetune_lm", *recipe, *source).stdout
    assert [line.split()[0] for line in found.splitlines()] == ["valley", "steep", "now", "plot", "set"]
    plot = finished / "models/smoke/find-lr-finetune_lm-frozen.png"
    assert str(plot) in found
    assert plot.read_bytes().startswith(b"\x89PNG")
    plot.unlink()
    option = found.splitlines()[-1].split("--set ")[1]
    assert option.startswith("finetune_lm.phases.0.lr=")
    assert load_recipe("smoke", [option]).finetune_lm.phases[0].lr == float(option.split("=")[1])
    svg = tmp_path / "x" / "plot.svg"
    again = call("find-lr", "train_classifier", *recipe, *source, "--phase", "all-layers", "--output", str(svg)).stdout
    assert "--set train_classifier.phases.1.lr=" in again
    assert "</svg>" in svg.read_text()
    assert {slot: hash_folder(finished / slot) for slot in before} == before
    assert not list(finished.rglob("*.tmp"))
    for wrong, message in (
        (("prepare_corpus",), "error: 'prepare_corpus' has no learning rate. Stages that train: finetune_lm, train"),
        (("finetune_lm", "--phase", "x"), "error: finetune_lm has no phase 'x'. Phases: frozen, unfrozen."),
        (("finetune_lm", "--output", "plot.pdf"), "error: plot.pdf is neither .png nor .svg."),
    ):
        assert message in call("find-lr", *wrong, *recipe, *source, exit_code=2).stderr


def test_find_lr_needs_the_inputs_of_its_stage(arguments: list[str], tmp_path: Path) -> None:
    recipe = [*arguments[:2], *arguments[4:], "--home", str(tmp_path)]
    missing = call("find-lr", "finetune_lm", *recipe, exit_code=3)
    assert "finetune_lm needs" in missing.stderr
    assert re.search(r"Make it first: python -m pipeline run .* --until numericalize_corpus\n$", missing.stderr)
