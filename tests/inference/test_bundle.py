"""Sealed classifier folders in use: without fastai, with training's own tokens, damaged, and in both directions."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_classifiers import LABELS, seal_classifier

from pipeline import artifact as artifacts
from pipeline.errors import InputError
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.model.weights import load_classifier
from pipeline.settings import RunSettings
from pipeline.text.char import CharTokenizer
from pipeline.text.text_encoder import TextEncoder

FP32 = RunSettings(precision="fp32", device="cpu")
TEXTS = ("A warm, witty film!", "the dull dull dull story", "the story", "A FINE cast " * 30)


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_texts_get_the_trained_models_probabilities(tmp_path: Path, direction: str) -> None:
    folder = seal_classifier(tmp_path / "classifier", direction=direction)
    bundle = load_classifier_bundle(folder, FP32)
    model = build_classifier(Architecture.load(folder / "architecture.json"), HeadShape.load(folder / "head.json"))
    load_classifier(model, folder)
    found = bundle.predict(TEXTS)
    assert found.sum(axis=1) == pytest.approx(1.0)
    for text, probabilities in zip(TEXTS, found, strict=True):
        (ids,) = bundle.text.encode([text])
        x = torch.from_numpy(ids[:: -1 if direction == "bwd" else 1].copy())[None]
        with torch.inference_mode():
            expected = torch.softmax(model.eval()(x)[0], dim=1)[0].numpy()
        assert probabilities == pytest.approx(expected, abs=1e-6)
        assert bundle.predict([text])[0] == pytest.approx(probabilities, abs=1e-6)
    assert bundle.predict([]).shape == (0, len(LABELS))
    assert (bundle.labels, bundle.classifier.direction) == (list(LABELS), direction)


def test_directions_differ(tmp_path: Path) -> None:
    forward, backward = (
        load_classifier_bundle(seal_classifier(tmp_path / d, direction=d), FP32).predict(TEXTS) for d in ("fwd", "bwd")
    )
    assert np.abs(forward - backward).max() > 1e-3


def test_edge_texts(tmp_path: Path) -> None:
    """What cleaning would drop is an empty document; nothing else is dropped, whatever it holds."""
    bundle = load_classifier_bundle(seal_classifier(tmp_path / "classifier"), FP32)
    counts = Counter[str]()
    texts = ["", " \n\t ", b"\xff\xfe", "NUL \0 inside", "\ud800", "\ufeffa film", "x" * 1_000_000, "a film\r\n" * 9]
    documents = bundle.text.encode(texts, counts)
    assert [len(document) for document in documents[:2]] == [1, 1]
    assert all(document[0] == 2 for document in documents)
    assert counts == {"empty": 1, "blank": 1, "invalid_utf8": 1, "nul": 1, "surrogates": 1, "bom": 1, "long_runs": 1,
                      "line_ends": 1}
    probabilities = bundle.probabilities(documents)
    assert np.isfinite(probabilities).all()
    assert (probabilities[0] == probabilities[1]).all()
    assert (np.abs(probabilities[3:] - probabilities[0]).max(axis=1) > 1e-6).all()
    assert bundle.text.encode(["a film"])[0].tolist() == documents[5].tolist()


def test_one_text_and_many_are_encoded_alike(tmp_path: Path) -> None:
    for number, tokenizer in enumerate((None, CharTokenizer())):
        text = TextEncoder.load(seal_classifier(tmp_path / str(number), tokenizer=tokenizer))
        for alone, among in zip((text.encode([t])[0] for t in TEXTS), text.encode(TEXTS), strict=True):
            assert alone.tolist() == among.tolist()


def test_loads_and_predicts_without_fastai(tmp_path: Path) -> None:
    folder = seal_classifier(tmp_path / "classifier")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipeline.inference.bundle import load_classifier_bundle\n"
        f"bundle = load_classifier_bundle(Path({str(folder)!r}))\n"
        "print(bundle.predict(['a warm film', 'dull']).shape)\n"
        "import pipeline.inference.classify, pipeline.inference.predict\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'fastai', 'fastcore', 'torchvision', 'sklearn', 'matplotlib'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, modules = done.stdout.splitlines()
    assert said == "(2, 2)"
    assert modules == "[]"


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = seal_classifier(tmp_path / "classifier")
    weights = bytearray((folder / "encoder.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "encoder.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=r"encoder\.safetensors was changed after sealing"):
        load_classifier_bundle(folder, FP32)


def test_another_kind_of_artifact_is_refused(tmp_path: Path) -> None:
    folder = seal_classifier(tmp_path / "classifier")
    manifest = artifacts.read_manifest(folder)
    assert manifest is not None
    other = manifest.model_copy(update={"slot": "lm"}).sealed()
    (folder / "manifest.json").write_text(other.model_dump_json(indent=2) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds lm, not classifier"):
        load_classifier_bundle(folder, FP32)


def test_labels_of_another_number_are_refused(tmp_path: Path) -> None:
    folder = seal_classifier(tmp_path / "classifier")
    (folder / "labels.json").write_text(json.dumps(["one", "two", "three"]), encoding="utf-8")
    manifest = artifacts.read_manifest(folder)
    assert manifest is not None
    record = manifest.files["labels.json"].model_copy(
        update={"sha256": artifacts.hash_file(folder / "labels.json"),
                "size_bytes": (folder / "labels.json").stat().st_size}
    )
    changed = manifest.model_copy(update={"files": {**manifest.files, "labels.json": record}}).sealed()
    (folder / "manifest.json").write_text(changed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"do not fit together: 20 tokens and 3 labels, but 24 embeddings and 2 class"):
        load_classifier_bundle(folder, FP32)
