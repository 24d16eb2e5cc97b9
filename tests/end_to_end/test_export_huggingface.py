"""Folders for the Hugging Face Hub: the card tells what the manifests tell, the way back gives the same artifact."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call, manifest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file

from pipeline.artifact import Manifest, hash_file, read_manifest
from pipeline.attempt import open_partial
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.report.figures import FORMS
from pipeline.settings import RunSettings

FP32 = RunSettings(precision="fp32", device="cpu")
TEXTS = ["A wonderful film with a clever ending!", "The plot was dull and boring.", "", "the music " * 300]
FILES = {
    "README.md", "architecture.json", "config.json", "curve.csv", "head.json", "history.csv", "history.jsonl",
    "labels.json", "manifest.json", "model.safetensors", "tokenizer/tokenizer.json", "vocabulary.json",
}


@pytest.fixture(scope="session")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier of the finished run, exported."""
    output = tmp_path_factory.mktemp("hub") / "film"
    call(
        "export", "--to", "huggingface", "--run", "smoke", "--home", str(finished), "--output", str(output),
        "--license", "apache-2.0",
    )
    return output


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def restore(folder: Path, to: Path, exit_code: int = 0, *more: str) -> str:
    return call("import-huggingface", str(folder), "--to", str(to), *more, exit_code=exit_code).output


def leaves(value: Any) -> Iterator[Any]:
    """Every number and text in a JSON document."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def numbers_in(text: str) -> set[str]:
    return set(re.findall(r"\d[\d,.:]*\d|\d", text))


def test_what_is_written(exported: Path, finished: Path) -> None:
    sealed = finished / "models/smoke/classifier-fwd"
    assert set(files_in(exported)) == FILES
    ours = load_file(sealed / "encoder.safetensors") | load_file(sealed / "head.safetensors")
    theirs = {name.partition(".")[2]: tensor for name, tensor in load_file(exported / "model.safetensors").items()}
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(theirs[name], tensor) for name, tensor in ours.items())
    config, record = json.loads((exported / "config.json").read_text(encoding="utf-8")), manifest(sealed)
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert config["label2id"] == {"bad": 0, "good": 1}
    assert (config["model_type"], config["direction"]) == ("staged-ulmfit", record["identity"]["direction"])
    assert config["lineage"] == {
        "classifier": record["fingerprint"], **{slot: one["fingerprint"] for slot, one in record["inputs"].items()}
    }
    assert config.items() >= json.loads((sealed / "architecture.json").read_text(encoding="utf-8")).items()
    assert config.items() >= json.loads((sealed / "head.json").read_text(encoding="utf-8")).items()


def test_the_metadata_of_the_card_are_those_of_the_manifests(exported: Path, finished: Path) -> None:
    data = ModelCard.load(exported / "README.md").data
    evaluation = manifest(finished / "models/smoke/evaluation")["metrics"]
    results = {result.metric_type: result for result in data.eval_results or []}
    assert {kind: result.metric_value for kind, result in results.items()} == {
        "accuracy": evaluation["accuracy"], "f1": evaluation["macro_f1"]
    }
    assert {result.metric_name for result in results.values()} == {
        "Accuracy (honest protocol)", "Macro F1 (honest protocol)"
    }
    assert results["f1"].dataset_args == {"documents": evaluation["test_documents"]}
    assert (data.license, data.language, data.library_name) == ("apache-2.0", "en", "staged-ulmfit")
    assert (data.pipeline_tag, data.metrics, data.datasets) == ("text-classification", ["accuracy", "f1"], None)
    assert data.model_name == "smoke"


def test_every_figure_of_the_card_is_one_of_a_manifest(exported: Path, finished: Path) -> None:
    """But for those in names and addresses: 95 % intervals, SHA-256, log-loss formats and the like."""
    text = (exported / "README.md").read_text(encoding="utf-8").partition("\n---\n\n")[2]
    documents = [manifest(path.parent) for path in finished.rglob("manifest.json")]
    documents += [json.loads(path.read_text(encoding="utf-8")) for path in finished.rglob("metrics.json")]
    documents += [
        json.loads((exported / name).read_text(encoding="utf-8")) for name in ("architecture.json", "head.json")
    ]
    known = {"95", "1", "256", "0.1.0"}
    for value in leaves(documents):
        if isinstance(value, str):
            known |= numbers_in(value) | numbers_in(value[:12]) | {value[:10], *numbers_in(value[:10])}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            for form in ("plain", "count", "percent", "share", "fixed2", "fixed4", "general", "duration"):
                if not (form == "count" and isinstance(value, float)):
                    known |= numbers_in(FORMS[form](value))
    found = numbers_in(text)
    assert len(found) > 30
    assert found <= known


def test_the_card_names_limits_and_lineage(exported: Path, finished: Path) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    for slot, folder in {"corpus": "data", "tokens": "data", "ids": "data", "lm-fwd": "models"}.items():
        assert f"`{manifest(finished / folder / 'smoke' / slot)['fingerprint'][:12]}`" in text
    assert "- Protocol: honest." in text
    assert "Classes: bad, good." in text
    assert "a table of its maker's own" in text
    assert "## Limits" in text


def test_the_way_back_gives_the_same_artifact_and_predictions(exported: Path, finished: Path, tmp_path: Path) -> None:
    sealed, to = finished / "models/smoke/classifier-fwd", tmp_path / "models/mine/classifier-fwd"
    said = call("import-huggingface", str(exported), "--run", "mine", "--home", str(tmp_path))
    assert said.stdout == f"{to}\n"
    assert files_in(to) == files_in(sealed)
    ours, theirs = (load_classifier_bundle(folder, FP32) for folder in (sealed, to))
    assert np.array_equal(ours.predict(TEXTS), theirs.predict(TEXTS))
    predicted = [
        call("predict", "--model", str(folder), "--device", "cpu", *TEXTS[:2]).stdout for folder in (sealed, to)
    ]
    assert predicted[0] == predicted[1] != ""
    assert "nothing changed" in restore(exported, to)
    assert not list(to.parent.glob(".*.partial"))


def test_an_unfinished_training_in_the_place_is_kept(copy: Path, tmp_path: Path) -> None:
    work, _ = open_partial(tmp_path / "to", "0" * 64)
    checkpoint = work / "resume/checkpoints/checkpoint-00000500"
    checkpoint.mkdir(parents=True)
    assert "to has an unfinished training with 1 checkpoints. Discard it with --force" in restore(
        copy, tmp_path / "to", 3
    )
    assert checkpoint.exists()
    restore(copy, tmp_path / "to", 0, "--force")
    assert not checkpoint.exists()


def test_the_exported_folder_is_no_place_for_the_artifact(copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    before = files_in(copy)
    for more in ((), ("--force",)):
        assert "is the exported folder itself. Choose another --to." in restore(copy, copy, 2, *more)
    assert files_in(copy) == before


def test_a_language_model_goes_the_same_way(finished: Path, tmp_path: Path) -> None:
    sealed = finished / "models/smoke/lm-fwd"
    call(
        "export", "--to", "huggingface", "--lm", str(sealed), "--home", str(finished),
        "--output", str(tmp_path / "hub"), "--name", "my_model", "--language", "de",
    )
    card = ModelCard.load(tmp_path / "hub/README.md")
    assert (card.data.pipeline_tag, card.data.language) == ("text-generation", "de")
    assert card.data.eval_results is None
    assert f"Perplexity {manifest(sealed)['metrics']['perplexity']:,.2f} on the validation documents." in card.text
    assert "# my\\_model\n" in card.text
    call("import-huggingface", str(tmp_path / "hub"), "--run", "again", "--home", str(tmp_path))
    assert files_in(tmp_path / "models/again/lm-fwd") == files_in(sealed)


def test_a_classifier_without_its_evaluation_says_so(finished: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone/classifier-fwd"
    shutil.copytree(finished / "models/smoke/classifier-fwd", alone)
    (tmp_path / "alone/evaluation").mkdir()
    (tmp_path / "alone/evaluation/notes.txt").write_text("the user's own")
    call("export", "--to", "huggingface", "--classifier", str(alone), "--output", str(tmp_path / "a"))
    card = ModelCard.load(tmp_path / "a/README.md")
    assert card.data.eval_results is None
    assert "It was not evaluated" in card.text
    assert "not at hand" in card.text
    named = str(finished / "models/smoke/evaluation")
    call(
        "export", "--to", "huggingface", "--classifier", str(alone), "--output", str(tmp_path / "b"),
        "--evaluation", named,
    )
    assert ModelCard.load(tmp_path / "b/README.md").data.eval_results is not None


def test_the_evaluation_beside_is_found_from_within(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished / "models/smoke/classifier-fwd")
    call("export", "--to", "huggingface", "--classifier", ".", "--output", str(tmp_path / "a"))
    assert ModelCard.load(tmp_path / "a/README.md").data.eval_results is not None


def test_results_of_the_published_protocol_are_called_so(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished / "models/smoke/evaluation", tmp_path / "evaluation"))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    metrics["protocol"]["transductive"] = True
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    record = read_manifest(folder)
    assert record is not None
    size = (folder / "metrics.json").stat().st_size
    changed = record.files["metrics.json"].model_copy(
        update={"sha256": hash_file(folder / "metrics.json"), "size_bytes": size}
    )
    _reseal(folder, record.model_copy(update={"files": {**record.files, "metrics.json": changed}}))
    call(
        "export", "--to", "huggingface", "--run", "smoke", "--home", str(finished), "--output", str(tmp_path / "out"),
        "--evaluation", str(folder),
    )
    card = ModelCard.load(tmp_path / "out/README.md")
    assert {r.metric_name for r in card.data.eval_results or []} == {
        "Accuracy (published protocol)", "Macro F1 (published protocol)"
    }
    assert "> **Note.** These numbers are transductive" in card.text
    assert "- Protocol: published." in card.text


def test_changed_folders_are_refused(copy: Path, tmp_path: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    name = "head.0.norm.bias"
    for changed, message in (
        ({**tensors, name: tensors[name] + 1}, "head.safetensors in .* is not what was exported"),
        ({key: tensor for key, tensor in tensors.items() if key != name}, "head.safetensors in .* is not what was"),
        ({**tensors, "decoder.bias": tensors[name]}, r"holds an unexpected tensor decoder\.bias"),
    ):
        save_file(changed, copy / "model.safetensors")
        assert re.search(message, restore(copy, tmp_path / "to", 3))
    (copy / "model.safetensors").write_bytes(b"{}")
    assert "cannot be read" in restore(copy, tmp_path / "to", 3)
    save_file(tensors, copy / "model.safetensors")
    (copy / "labels.json").write_text('["good", "bad"]', encoding="utf-8")
    assert "labels.json is not what was exported" in restore(copy, tmp_path / "to", 3)
    (copy / "labels.json").unlink()
    assert "labels.json is missing. Download the folder again." in restore(copy, tmp_path / "to", 3)
    assert not [path.name for path in tmp_path.iterdir() if path.name not in ("copy", ".to.lock")]


@pytest.mark.parametrize("name", [
    "../outside", "/outside", "//outside", "a/../../outside", "..\\outside", "./manifest.json", "resume/outside", ".",
])
def test_a_manifest_cannot_lead_out_of_the_folder(copy: Path, tmp_path: Path, name: str) -> None:
    record = read_manifest(copy)
    assert record is not None
    _reseal(copy, record.model_copy(update={"files": {**record.files, name: record.files["labels.json"]}}))
    assert "which no model has" in restore(copy, tmp_path / "to/artifact", 3)
    assert not list(tmp_path.rglob("outside"))


def test_other_slots_and_folders_are_refused(copy: Path, finished: Path, tmp_path: Path) -> None:
    record = read_manifest(copy)
    assert record is not None
    assert "was not written by" in restore(finished / "models/smoke/classifier-fwd", tmp_path / "to", 3)
    assert "was not written by" in restore(tmp_path / "nowhere", tmp_path / "to", 3)
    extra = {**record.files, "x.safetensors": record.files["labels.json"]}
    _reseal(copy, record.model_copy(update={"files": extra}))
    assert "names weights of no model: x.safetensors" in restore(copy, tmp_path / "to", 3)
    conflict = {**record.files, "labels.json/x": record.files["labels.json"]}
    _reseal(copy, record.model_copy(update={"files": conflict}))
    assert "is missing. Download the folder again." in restore(copy, tmp_path / "to", 3)
    _reseal(copy, record.model_copy(update={"identity": {**record.identity, "direction": "../../x"}}))
    assert "does not say in which direction" in call(
        "import-huggingface", str(copy), "--run", "a", "--home", str(tmp_path), exit_code=3
    ).output
    _reseal(copy, record.model_copy(update={"slot": "corpus"}))
    assert "was not written by" in restore(copy, tmp_path / "to", 3)


def _reseal(folder: Path, record: Manifest) -> None:
    (folder / "manifest.json").write_text(record.sealed().model_dump_json(), encoding="utf-8")


def test_what_cannot_be_asked_for(exported: Path, finished: Path, tmp_path: Path) -> None:
    both = call("import-huggingface", str(exported), "--to", "a", "--run", "b", exit_code=2).output
    assert "Give --run NAME or --to FOLDER, one of them." in both
    assert "'' cannot name a run" in call("import-huggingface", str(exported), "--run", "", exit_code=2).output
    assert "'a/b' cannot name a run" in call("import-huggingface", str(exported), "--run", "a/b", exit_code=2).output
    lm = finished / "models/smoke/lm-fwd"
    assert "holds another artifact. Replace it with --force" in restore(
        exported, Path(shutil.copytree(lm, tmp_path / "lm")), 3
    )
    restore(exported, tmp_path / "lm", 0, "--force")
    assert manifest(tmp_path / "lm")["slot"] == "classifier"
    for args, message in (
        (("--int8",), "--int8 is for onnx, not for fastai."),
        (("--classifier", "a"), "--classifier is for onnx and huggingface, not for fastai."),
        (("--to", "onnx", "--lm", "a"), "--lm is for fastai and huggingface, not for onnx."),
        (("--to", "onnx", "--license", "mit"), "--license is for huggingface, not for onnx."),
        (("--to", "huggingface", "--lm", "a", "--classifier", "b"), "--classifier and --lm both say which model."),
        (("--to", "huggingface", "--classifier", str(tmp_path / "lm"), "--output", str(tmp_path / "lm")),
         "is the model itself. Name another folder."),
        (("--to", "huggingface"), "Give --classifier FOLDER or --run NAME, one of them."),
    ):
        assert message in call("export", "--output", str(tmp_path / "out"), *args, exit_code=2).output
    wrong = call(
        "export", "--to", "huggingface", "--run", "smoke", "--home", str(finished), "--output", str(tmp_path / "out"),
        "--evaluation", str(_foreign_evaluation(finished, tmp_path)), exit_code=3,
    )
    assert "scored classifier ffffffffffff" in wrong.output


def _foreign_evaluation(finished: Path, tmp_path: Path) -> Path:
    """The evaluation of another classifier."""
    folder = Path(shutil.copytree(finished / "models/smoke/evaluation", tmp_path / "foreign"))
    record = read_manifest(folder)
    assert record is not None
    other = record.inputs["classifier"].model_copy(update={"fingerprint": "f" * 64})
    _reseal(folder, record.model_copy(update={"inputs": {**record.inputs, "classifier": other}}))
    return folder
