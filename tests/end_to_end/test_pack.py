"""Packed models: small, without a trace of the machine, used and fine-tuned like the ones they came from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import call, manifest, write_reviews

from pipeline import pretrained
from pipeline.artifact import open_artifact
from pipeline.attempt import open_partial
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.report.chain import chain_to
from pipeline.settings import RunSettings

TEXTS = ["A wonderful, touching film.", "Dull, clumsy and tedious.", "The plot."]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a finished run whose matrices are large enough to be stored in fewer bits, and its packed models."""
    home = tmp_path_factory.mktemp("home")
    table = write_reviews(home / "reviews.csv", n=160)
    call(
        "run", "--recipe", "smoke", "--source", str(table), "--home", str(home), "--set", "run.device=cpu",
        "--set", "prepare_corpus.split_column=split", "--set", "run.precision=fp32", "--set", "finetune_lm.n_hid=150",
        "--set", "tokenize_corpus.workers=1", "--set", "finetune_lm.phases=[{name='a', lr=0.01}]",
        "--set", "train_classifier.phases=[{name='a', lr=0.01}]",
    )
    pack(home)
    return home


def pack(home: Path, *more: str, exit_code: int = 0) -> str:
    models = [str(home / "models/smoke" / name) for name in ("lm-fwd", "classifier-fwd")]
    done = call("pack", *models, "--output", str(home / "packed"), *more, exit_code=exit_code)
    return done.stdout + done.stderr


def probabilities(folder: Path) -> np.ndarray:
    return load_classifier_bundle(folder, RunSettings(precision="fp32", device="cpu")).predict(TEXTS)


def test_a_packed_classifier_predicts_almost_as_before(home: Path) -> None:
    whole, packed = (probabilities(home / folder / "classifier-fwd") for folder in ("models/smoke", "packed"))
    np.testing.assert_allclose(packed, whole, atol=0.02)
    assert not np.array_equal(packed, whole)


def test_a_packed_model_keeps_what_its_training_took(home: Path) -> None:
    data, packed = home / "data/smoke", home / "packed"
    call(
        "evaluate_classifier", "--run", "both", "--home", str(home), "--recipe", "smoke",
        "--set", f"inputs.corpus={data}/corpus", "--set", f"inputs.tokens={data}/tokens",
        "--set", f"inputs.ids={data}/ids", "--set", f"inputs.lm={packed}/lm-fwd",
        "--set", f"inputs.classifier={packed}/classifier-fwd",
    )
    (found,) = json.loads(call("results", "both", "--json", "--home", str(home)).stdout)
    took = {stage["role"]: (stage["wall_s"], stage["peak_memory_mb"]) for stage in found["stages"]}
    for role, name in (("lm", "lm-fwd"), ("classifier", "classifier-fwd")):
        trained = manifest(home / "models/smoke" / name)
        assert took[role] == (trained["wall_s"], trained["peak_memory_mb"])
        assert manifest(packed / name)["wall_s"] == trained["wall_s"]


def test_what_was_packed_together_is_found_together(home: Path, tmp_path: Path) -> None:
    folders = (home / "packed/classifier-fwd", home / "models/smoke/classifier-fwd")
    packed, whole = (open_artifact(folder, "classifier") for folder in folders)
    found = {link.role: link.path for link in chain_to(packed, tmp_path) if link.manifest}
    assert found == {"classifier": packed.path, "lm": home / "packed/lm-fwd"}
    found = {link.role: link.path for link in chain_to(whole, tmp_path) if link.manifest}
    assert found == {"classifier": whole.path}, "a copy is not the model"


def test_a_model_that_ships_is_used_by_its_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipping = tmp_path / "shipping"
    shutil.copytree(home / "packed", shipping / "small")
    (shipping / "README.md").write_text("no model")
    monkeypatch.setattr(pretrained, "_HOMES", (tmp_path / "not there", shipping))
    assert pretrained.shipped_models() == {"small": shipping / "small"}
    call("predict", "Dull.", "--model", "small", "--home", str(tmp_path))
    start = (
        "run", "--recipe", "smoke", "--source", str(home / "reviews.csv"), "--home", str(tmp_path), "--set",
        "prepare_corpus.split_column=split", "--set", "inputs.start_lm=small", "--until", "numericalize_corpus",
    )
    call(*start)
    identity = manifest(tmp_path / "data/smoke/ids")["identity"]
    assert identity["vocabulary"] == manifest(home / "packed/lm-fwd")["identity"]["vocabulary"]
    refused = call(*start, "--set", "run.direction=bwd", "--run", "back", exit_code=3)
    assert "small/lm-bwd, which is not there" in refused.stderr
    # A run of that name comes first, and so does a folder.
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models/small").symlink_to(home / "models/smoke")
    assert "models/small" in call("predict", "Dull.", "--model", "small", "--home", str(tmp_path)).stderr


@pytest.mark.parametrize("name", ["lm-fwd", "classifier-fwd"])
def test_it_is_small_and_tells_nothing_of_the_machine(home: Path, name: str) -> None:
    before, after = manifest(home / "models/smoke" / name), manifest(home / "packed" / name)
    size = {path: record["size_bytes"] for path, record in after["files"].items()}
    assert size["encoder.safetensors"] < 0.5 * before["files"]["encoder.safetensors"]["size_bytes"]
    assert before["files"].keys() - size == {"history.csv", "history.jsonl", "curve.csv"}
    text = json.dumps(after)
    assert str(home) not in text
    assert before["host"] not in text
    assert after["hardware"] == before["hardware"] is not None  # that of the training
    assert (after["identity"], after["metrics"]["storage"]) == (before["identity"], "int8")
    assert after["settings"]["pack"]["of"] == before["fingerprint"]
    assert {s: r["fingerprint"] for s, r in after["inputs"].items()} == {
        s: r["fingerprint"] for s, r in before["inputs"].items()
    }


@pytest.mark.parametrize(("before", "after"), [
    ("../home/alice/secret-lm", "secret-lm"), ("/home/alice/secret/lm-fwd", "lm-fwd"),
    ("kept/models/wt103/lm-fwd", "models/wt103/lm-fwd"),
])
def test_an_input_outside_the_home_names_no_folder_of_the_machine(
    home: Path, tmp_path: Path, before: str, after: str
) -> None:
    model = tmp_path / "lm-fwd"
    shutil.copytree(home / "models/smoke/lm-fwd", model)
    known = open_artifact(model, "lm").manifest
    known = known.model_copy(update={"inputs": {"ids": known.inputs["ids"].model_copy(update={"path": before})}})
    (model / "manifest.json").write_text(known.sealed().model_dump_json(), encoding="utf-8")
    call("pack", str(model), "--output", str(tmp_path / "packed"))
    assert manifest(tmp_path / "packed/lm-fwd")["inputs"]["ids"]["path"] == after


def test_the_same_again_changes_nothing_and_other_storage_needs_force(home: Path) -> None:
    assert pack(home).count("nothing changed") == 2
    said = pack(home, "--storage", "bf16", exit_code=3)
    assert "packed/lm-fwd was made from something else. Replace it with --force." in said
    said = call("pack", str(home / "packed/lm-fwd"), "--output", str(home / "again"), exit_code=3).stderr
    assert "is packed already. Name the model it was packed from." in said
    said = call("pack", str(home / "data/smoke/ids"), "--output", str(home / "again"), exit_code=3).stderr
    assert "holds ids. Name a sealed model or evaluation" in said
    said = call("pack", str(home / "models/smoke/lm-fwd"), "--output", str(home / "models/smoke"), exit_code=2).stderr
    assert "is the model itself. Choose another --output." in said


def test_a_card_that_was_edited_is_kept(home: Path, tmp_path: Path) -> None:
    packing = ("pack", str(home / "models/smoke/lm-fwd"), "--output", str(tmp_path), "--card")
    call(*packing)
    card = tmp_path / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nBy hand.\n", encoding="utf-8")
    assert "README.md is there already and holds something else. Replace it with --force." in call(
        *packing, exit_code=3
    ).stderr
    assert "By hand." in card.read_text(encoding="utf-8")
    call(*packing, "--force")
    assert "By hand." not in card.read_text(encoding="utf-8")
    call(*packing)


def test_an_evaluation_of_the_model_before_it_was_packed_is_not_that_of_the_packed(home: Path, tmp_path: Path) -> None:
    models = [str(home / "models/smoke" / name) for name in ("classifier-fwd", "evaluation")]
    assert manifest(Path(models[1]))["inputs"]["classifier"]["fingerprint"] == manifest(Path(models[0]))["fingerprint"]
    said = call("pack", *models, "--output", str(tmp_path), "--card", exit_code=3).stderr
    assert "none of those packed. Score a packed one" in said
    assert f"--set inputs.classifier={tmp_path}/classifier-fwd" in said


def test_names_and_places_of_packed_models(home: Path, tmp_path: Path) -> None:
    lm = home / "models/smoke/lm-fwd"
    shutil.copytree(lm, tmp_path / "other/lm-fwd")
    said = call("pack", str(lm), str(tmp_path / "other/lm-fwd"), "--output", str(tmp_path / "out"), exit_code=2).stderr
    assert "2 of the models are called lm-fwd, and would be packed into one place" in said
    assert not (tmp_path / "out").exists()
    (tmp_path / "lm-bwd").symlink_to(lm)
    call("pack", str(tmp_path / "lm-bwd"), "--output", str(tmp_path / "out"))
    assert (tmp_path / "out/lm-bwd").is_dir()
    (open_partial(tmp_path / "out/lm-fwd", "0" * 64)[0] / "resume/checkpoints/checkpoint-00000500").mkdir(parents=True)
    said = call("pack", str(lm), "--output", str(tmp_path / "out"), exit_code=3).stderr
    assert "has an unfinished training with 1 checkpoints. Discard it with --force, or choose another --output." in said


def test_packed_models_are_evaluated_and_fine_tuned_like_others(home: Path) -> None:
    call(
        "evaluate_classifier", "--run", "smoke", "--home", str(home), "--force",
        "--set", f"inputs.classifier={home / 'packed/classifier-fwd'}",
    )
    protocol = json.loads((home / "models/smoke/evaluation/metrics.json").read_text(encoding="utf-8"))["protocol"]
    assert protocol["classifier_trained_on_this_split"] is True
    card_of_the_evaluated(home)
    said = call(
        "run", "--recipe", "smoke", "--run", "more", "--source", str(home / "reviews.csv"), "--home", str(home),
        "--set", "prepare_corpus.split_column=split", "--set", "tokenize_corpus.workers=1", "--until", "finetune_lm",
        "--set", f"inputs.start_lm={home / 'packed/lm-fwd'}", "--set", "run.device=cpu",
    )
    assert said.exit_code == 0
    assert manifest(home / "models/more/lm-fwd")["files"]["encoder.safetensors"]["size_bytes"] == manifest(
        home / "models/smoke/lm-fwd"
    )["files"]["encoder.safetensors"]["size_bytes"]


def card_of_the_evaluated(home: Path) -> None:
    """The evaluation packed beside the classifier that it is of, and the card with its results and all checksums."""
    evaluation = home / "models/smoke/evaluation"
    call("pack", str(evaluation), "--output", str(home / "packed"), "--card", "--license", "mit", "--home", str(home))
    before, after = manifest(evaluation), manifest(home / "packed/evaluation")
    assert after["metrics"] == before["metrics"]
    assert before["files"].keys() - after["files"].keys() == {"evaluation.md"}
    assert {name for name in after["files"] if after["files"][name] != before["files"][name]} == {"metrics.json"}
    mistakes = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")).pop("mistakes")
                for folder in (evaluation, home / "packed/evaluation")]
    assert mistakes[0]
    assert [{**mistake, "excerpt": ""} for mistake in mistakes[1]] == [{**m, "excerpt": ""} for m in mistakes[0]]
    assert not any("excerpt" in mistake for mistake in mistakes[1])
    assert str(home) not in json.dumps(after)
    card = (home / "packed/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "license: mit" in card
    assert f"**Accuracy {100 * before['metrics']['accuracy']:.2f} %**" in card
    assert "not at hand" not in card
    assert str(home) not in card
    for name in ("lm-fwd", "classifier-fwd"):
        for file, record in manifest(home / "packed" / name)["files"].items():
            assert (f"| {name}/{file} | int8 | `{record['sha256']}` |" in card) == file.endswith(".safetensors")
    refused = call("pack", str(evaluation), "--output", str(home / "alone"), "--card", exit_code=3)
    assert "has no packed model" in refused.stderr


@pytest.mark.parametrize("storage", ["float32", "bf16", "int8"])
def test_what_is_packed_can_go_to_the_hub_and_come_back(home: Path, tmp_path: Path, storage: str) -> None:
    call("pack", str(home / "models/smoke/classifier-fwd"), "--output", str(tmp_path), "--storage", storage)
    packed = tmp_path / "classifier-fwd"
    call("export", "--to", "huggingface", "--classifier", str(packed), "--output", str(tmp_path / "hub"))
    call("import-huggingface", str(tmp_path / "hub"), "--to", str(tmp_path / "back"))
    assert (tmp_path / "back/manifest.json").read_bytes() == (packed / "manifest.json").read_bytes()
    assert np.array_equal(probabilities(tmp_path / "back"), probabilities(packed))
    whole = probabilities(home / "models/smoke/classifier-fwd")
    assert np.array_equal(probabilities(packed), whole) == (storage == "float32")
