"""A few labels of many, and an encoder that starts from nothing."""

from pathlib import Path

import pytest
from command_line import call, manifest, write_reviews
from safetensors.numpy import load_file

BARELY = "train_classifier.phases=[{name='a', lr=1e-9}]"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a run up to its language model."""
    home = tmp_path_factory.mktemp("home")
    table = write_reviews(home / "reviews.csv", n=160)
    call(
        "run", "--recipe", "smoke", "--source", str(table), "--home", str(home), "--until", "finetune_lm",
        "--set", "prepare_corpus.split_column=split", "--set", "run.device=cpu", "--set", "run.precision=fp32",
        "--set", "tokenize_corpus.workers=1", "--set", "finetune_lm.phases=[{name='a', lr=0.01}]", "--set", BARELY,
    )
    return home


def test_classifier_and_baseline_look_at_the_same_few_labels(home: Path) -> None:
    said = call("run", "--run", "smoke", "--home", str(home), "--set", "train_classifier.labelled=20").stderr
    metrics = manifest(home / "models/smoke/classifier-fwd")["metrics"]
    assert metrics["labelled"] == metrics["train_documents"] + metrics["valid_documents"] == 20
    assert f"fitting TF-IDF + logistic regression on {metrics['train_documents']} documents of train" in said
    page = (home / "models/smoke/evaluation/evaluation.md").read_text(encoding="utf-8")
    assert "Of the labels of train and valid, 20 were looked at: train_classifier.labelled." in page


def test_a_draw_that_cannot_hold_every_label_is_refused(home: Path, tmp_path: Path) -> None:
    table = tmp_path / "many.csv"
    rows = [f"words of a text {i},{'abcdefgh'[i % 8]},{'train' if i % 9 else 'test'}" for i in range(200)]
    table.write_text("text,label,split\n" + "\n".join(rows) + "\n", encoding="utf-8")
    said = call(
        "run", "--recipe", "smoke", "--source", str(table), "--home", str(tmp_path), "--set", "run.device=cpu",
        "--set", "prepare_corpus.split_column=split", "--set", "finetune_lm.phases=[{name='a', lr=0.01}]",
        "--set", "train_classifier.labelled=6", exit_code=4,
    ).stderr
    assert "train_classifier.labelled is 6: too few to train on each of the 8 labels" in said
    assert "Set it to 32 or more." in said


@pytest.mark.parametrize("encoder", ["pretrained", "random"])
def test_the_encoder_starts_from_the_language_model_or_from_nothing(home: Path, encoder: str) -> None:
    call(
        "train_classifier", "--run", "smoke", "--home", str(home), "--set", f"train_classifier.encoder={encoder}",
        "--force",
    )
    folder = home / "models/smoke"
    lm, classifier = (load_file(folder / name / "encoder.safetensors") for name in ("lm-fwd", "classifier-fwd"))
    distance = max(float(abs(lm[name] - classifier[name]).max()) for name in lm)
    assert manifest(folder / "classifier-fwd")["metrics"]["encoder"] == encoder
    assert distance < 1e-4 if encoder == "pretrained" else distance > 0.05
