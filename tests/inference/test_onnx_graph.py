"""Classifiers as ONNX graphs: our probabilities for every length, in any company, whatever stands behind the end."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_classifiers import LABELS, random_classifier, random_rows, save, seal_classifier

from pipeline.artifact import open_artifact
from pipeline.errors import DataError, InputError
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.inference.classifier import load_classifier
from pipeline.model.architecture import HeadShape
from pipeline.progress import Reporter
from pipeline.settings import RunSettings

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from pipeline.export import parity as parities  # noqa: E402
from pipeline.export.onnx_folder import OnnxRequest, export_onnx  # noqa: E402
from pipeline.export.onnx_graph import classifier_graph  # noqa: E402

SHAPES = (
    HeadShape(2, (6,), 5, 20),
    HeadShape(3, (), 4, 10),  # max_len is no multiple of seq_len
    HeadShape(2, (7, 5), 6, 3),  # max_len below seq_len: one chunk
)
FP32 = RunSettings(precision="fp32", device="cpu")
TEXTS = ("A warm, witty film!", "the dull dull dull story", "", "a fine cast " * 40)


def session_of(folder: Path, direction: str) -> Any:
    return onnxruntime.InferenceSession(classifier_graph(folder, direction).SerializeToString())


def run(session: Any, rows: list[Any], fill: int = 0) -> Any:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.full((len(rows), lengths.max()), fill, dtype=np.int64)
    for into, row in zip(ids, rows, strict=True):
        into[: len(row)] = row
    return session.run(None, {"ids": ids, "lengths": lengths})[0]


def export(folder: Path, output: Path, **request: Any) -> dict[str, Any]:
    asked = OnnxRequest(output, request.pop("documents", 30), home=folder.parent, **request)
    return export_onnx(open_artifact(folder, "classifier"), asked, Reporter(io.StringIO()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_every_length_gives_our_probabilities(tmp_path: Path, shape: HeadShape, direction: str) -> None:
    import torch

    folder = save(random_classifier(shape), shape, tmp_path)
    session, ours = session_of(folder, direction), load_classifier(folder, torch.float32, torch.device("cpu"))
    rows = random_rows(range(1, 3 * max(shape.max_len, shape.seq_len) + 2))[::-1]
    with torch.inference_mode():
        step = -1 if direction == "bwd" else 1
        expected = torch.softmax(ours([row[::step] for row in rows], 64), dim=1).numpy()
    together = run(session, rows)
    assert together.shape == (len(rows), shape.n_classes)
    np.testing.assert_allclose(together, expected, atol=2e-6)
    np.testing.assert_allclose(run(session, rows, fill=40), together, atol=1e-6)
    np.testing.assert_allclose(run(session, rows[::-1])[::-1], together, atol=1e-6)
    for i in (0, len(rows) // 2, len(rows) - 1):
        np.testing.assert_allclose(run(session, rows[i : i + 1])[0], together[i], atol=1e-6)


def test_the_graph_uses_standard_operators_and_names_its_inputs(tmp_path: Path) -> None:
    folder = save(random_classifier(SHAPES[0]), SHAPES[0], tmp_path)
    model = classifier_graph(folder, "bwd")
    assert {node.domain for node in model.graph.node} == {""}
    assert [i.name for i in model.graph.input] == ["ids", "lengths"]
    assert [o.name for o in model.graph.output] == ["probabilities"]
    assert model.SerializeToString() == classifier_graph(folder, "bwd").SerializeToString()


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_a_folder_holds_all_that_is_needed(tmp_path: Path, direction: str) -> None:
    folder = seal_classifier(tmp_path / "classifier", direction=direction)
    parity = export(folder, tmp_path / "out", int8=True)
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {
        "model.onnx", "model-int8.onnx", "labels.json", "vocabulary.json", "tokenizer/tokenizer.json", "parity.json",
        "README.md",
    }
    assert json.loads((tmp_path / "out/parity.json").read_text(encoding="utf-8")) == parity
    assert parity["sample"] == "random tokens"
    assert set(parity["models"]) == {"ours", "float32", "int8"}
    assert "accuracy" not in parity["models"]["int8"]
    assert max(parity["every_length"]["lengths"]) > 2 * 50
    int8 = onnx.load(tmp_path / "out/model-int8.onnx")
    assert [node.op_type for node in int8.graph.node].count("DynamicQuantizeLSTM") == 2
    table = next(c for c in int8.graph.initializer if c.name.startswith("embedding.weight") and len(c.dims) == 2)
    assert table.data_type == onnx.TensorProto.UINT8
    for name, tolerance in (("model.onnx", 1e-6), ("model-int8.onnx", 0.05)):
        bundle = load_classifier_bundle(folder, FP32)
        found = run(onnxruntime.InferenceSession(tmp_path / "out" / name), bundle.text.encode(TEXTS))
        np.testing.assert_allclose(found, bundle.predict(TEXTS), atol=tolerance)


def test_the_python_in_the_readme_runs_without_torch(tmp_path: Path) -> None:
    folder = seal_classifier(tmp_path / "classifier", direction="bwd")
    export(folder, tmp_path / "out")
    readme = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    blocked = "import sys\nsys.modules['torch'] = sys.modules['fastai'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=tmp_path / "out", capture_output=True, text=True, check=True
    )
    texts = re.findall(r'encode\(\["(.*?)", "(.*?)"\]\)', code)[0]
    expected = load_classifier_bundle(folder, FP32).predict(texts)
    assert done.stdout.startswith(str([LABELS[i] for i in expected.argmax(axis=1)]))
    shown = np.array(re.findall(r"\d\.\d+(?:e-\d+)?", done.stdout), dtype=float)
    np.testing.assert_allclose(shown, expected.ravel(), atol=1e-6)
    assert "(the graph turns it round)" in readme
    assert "model-int8.onnx" not in readme


def test_a_read_only_model_gives_a_folder_like_any_other(tmp_path: Path) -> None:
    folder = seal_classifier(tmp_path / "classifier")
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        export(folder, tmp_path / "out")
    finally:
        for path in paths:
            path.chmod(0o755)
    made = list((tmp_path / "out").rglob("*"))
    # root may write anywhere, so that the modes tell where an export of others would fail.
    assert [path.name for path in made if not path.stat().st_mode & 0o200] == []
    assert "tokenizer.json" in [path.name for path in made]


def test_texts_of_a_file_are_compared(tmp_path: Path) -> None:
    folder = seal_classifier(tmp_path / "classifier")
    (tmp_path / "texts.txt").write_text("a warm film\ndull\n\nthe story\n", encoding="utf-8")
    parity = export(folder, tmp_path / "out", texts=tmp_path / "texts.txt", documents=3)
    assert (parity["sample"], parity["documents"]) == ("texts.txt", 3)
    (tmp_path / "none.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"none\.txt holds no text\. Give another --input\."):
        export(folder, tmp_path / "none", texts=tmp_path / "none.txt")
    assert not (tmp_path / "none").exists()


def test_nothing_is_replaced_without_force_and_nothing_else_is_tolerated(tmp_path: Path) -> None:
    folder, out = seal_classifier(tmp_path / "classifier"), tmp_path / "out"
    export(folder, out)
    other = seal_classifier(tmp_path / "other", seed=4)
    with pytest.raises(InputError, match=r"is there already and holds something else\. Replace it with --force\."):
        export(other, out)
    before = (out / "model.onnx").read_bytes()
    (out / ".export.tmp").mkdir()  # of an export that was killed
    (out / ".export.tmp/half.onnx").write_bytes(b"half")
    export(other, out, force=True)
    assert (out / "model.onnx").read_bytes() != before
    assert not list(out.rglob("half.onnx"))
    (out / "mine.txt").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.txt is there already and no part of this export\. Remove it, or name"):
        export(folder, out, force=True)
    assert (out / "model.onnx").read_bytes() != before
    assert not list(out.glob(".*"))


def test_a_runtime_that_computes_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = seal_classifier(tmp_path / "classifier")
    monkeypatch.setattr(parities, "TOLERANCE", 0.0)
    with pytest.raises(InputError, match=r"differ by .* from this program's, more than 0\. Install the versions of"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
