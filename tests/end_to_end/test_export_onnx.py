"""The classifier of a finished run in ONNX: compared on the labelled documents that its lineage leads to."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call, manifest

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


def test_a_run_is_compared_on_the_split_asked_for(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("export", "--to", "onnx", "--run", "smoke", "--home", str(finished), "--output", str(out), "--int8",
                "--split", "test")
    parity = json.loads((out / "parity.json").read_text(encoding="utf-8"))
    evaluation = manifest(finished / "models/smoke/evaluation")["metrics"]
    assert parity["sample"] == "test split of data/smoke/ids"
    assert parity["documents"] == evaluation["test_documents"]
    assert parity["classifier"] == manifest(finished / "models/smoke/classifier-fwd")["fingerprint"]
    models = parity["models"]
    assert models["ours"]["accuracy"] == models["float32"]["accuracy"] == evaluation["accuracy"]
    assert models["float32"]["equal_labels"] == 1.0
    assert models["float32"]["max_difference"] < 1e-5 < models["int8"]["max_difference"] < 0.1
    assert models["int8"]["size_mb"] < models["float32"]["size_mb"]
    assert all(model["documents_per_s"] > 0 for model in models.values())
    shown = done.stdout.splitlines()
    assert shown[0] == f"{evaluation['test_documents']} documents, test split of data/smoke/ids; 1 thread(s)"
    readme = (out / "README.md").read_text(encoding="utf-8")
    for name, line in zip(models, shown[3:], strict=True):
        assert line.split()[0] == name
        assert f"| {name} | {line.split()[1]} |" in readme
        assert f"{100 * models[name]['accuracy']:.2f} %" in line
    some = call(
        "export", "--to", "onnx", "--run", "smoke", "--home", str(finished), "--output", str(tmp_path / "some"),
        "--documents", "7",
    )
    assert some.stdout.startswith("7 documents, valid split of ")


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_a_packed_classifier_gives_the_graph_of_its_restored_weights(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.setattr("pipeline.model.stored_tensors.SMALL", 1)  # the run is so small that it would stay as it is
    classifier, out = finished / "models/smoke/classifier-fwd", tmp_path / "out"
    call("pack", str(classifier), "--output", str(tmp_path), "--storage", storage)
    call("export", "--to", "onnx", "--classifier", str(tmp_path / classifier.name), "--output", str(out))
    float32 = json.loads((out / "parity.json").read_text(encoding="utf-8"))["models"]["float32"]
    assert float32["max_difference"] < 1e-5


def test_without_the_extra_it_says_what_to_install(finished: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['onnxruntime'] = None\nfrom pipeline.cli import app\n"
        f"app(['export', '--to', 'onnx', '--run', 'smoke', '--home', {str(finished)!r}, '--output', 'x'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: onnxruntime is not installed. Install what it needs: pip install -c constraints.txt '.[onnx]'\n"
    )
    assert not list(tmp_path.iterdir())
