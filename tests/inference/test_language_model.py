"""Sealed language model folders in use: the trained model's logits, exact state, without fastai, damaged."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_classifiers import seal_classifier
from tiny_language_models import VOCABULARY, fastai_model, seal_language_model

from pipeline import artifact as artifacts
from pipeline.errors import InputError
from pipeline.inference.language_model import load_language_model_bundle
from pipeline.settings import RunSettings

FP32 = RunSettings(precision="fp32", device="cpu")


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("tie_weights", [True, False])
@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_logits_are_the_trained_models(tmp_path: Path, direction: str, tie_weights: bool) -> None:
    folder = seal_language_model(tmp_path / "lm", direction=direction, tie_weights=tie_weights)
    bundle, model = load_language_model_bundle(folder, FP32), fastai_model(folder)
    assert (bundle.direction, bundle.vocabulary, bundle.path) == (direction, list(VOCABULARY), folder)
    ids = torch.randint(0, len(VOCABULARY), (3, 50), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        model.reset()
        first, second = model(ids[:, :20])[0], model(ids[:, 20:])[0]  # fastai keeps the state itself
        logits, state = bundle.model(ids[:, :20])
        more, _ = bundle.model(ids[:, 20:], state)
        whole, _ = bundle.model(ids)
    assert relative_difference(logits, first) < 1e-6
    assert relative_difference(more, second) < 1e-6
    assert relative_difference(whole, torch.cat([first, second], dim=1)) < 1e-6


def test_the_state_carries_everything(tmp_path: Path) -> None:
    """Token by token gives the logits of all at once."""
    bundle = load_language_model_bundle(seal_language_model(tmp_path / "lm"), FP32)
    ids = torch.randint(0, len(VOCABULARY), (1, 40), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        whole, _ = bundle.model(ids)
        state, steps = None, []
        for token in ids.T:
            logits, state = bundle.model(token[None], state)
            steps.append(logits)
    assert relative_difference(torch.cat(steps, dim=1), whole) < 1e-6


def test_lower_precision_gives_float32_logits(tmp_path: Path) -> None:
    folder = seal_language_model(tmp_path / "lm")
    ids = torch.tensor([[2, 10, 11]])
    exact, near = (
        load_language_model_bundle(folder, RunSettings(precision=precision, device="cpu")).model(ids)[0]
        for precision in ("fp32", "bf16")
    )
    assert near.dtype == torch.float32
    assert 0 < relative_difference(near, exact) < 0.05


def test_loads_without_fastai(tmp_path: Path) -> None:
    folder = seal_language_model(tmp_path / "lm")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipeline.inference.language_model import load_language_model_bundle\n"
        f"bundle = load_language_model_bundle(Path({str(folder)!r}))\n"
        "import pipeline.inference.generate\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'fastai', 'fastcore', 'torchvision', 'sklearn', 'matplotlib'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = seal_language_model(tmp_path / "lm")
    weights = bytearray((folder / "decoder.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "decoder.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=r"decoder\.safetensors was changed after sealing"):
        load_language_model_bundle(folder, FP32)


def test_another_kind_of_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds classifier, not lm"):
        load_language_model_bundle(seal_classifier(tmp_path / "classifier"), FP32)
    with pytest.raises(InputError, match="There is no lm artifact at"):
        load_language_model_bundle(tmp_path / "nothing", FP32)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("architecture.json", '"n_hid": 12', '"n_hid": 11', r"weight_ih is \[48, 8\].* needs \[44, 8\]"),
        ("architecture.json", '"tie_weights": true', '"tie_weights": false', r"decoder\.safetensors lacks tensor weig"),
        ("vocabulary.json", '"3"', '"3",\n"4"', r"do not fit together: 23 tokens, but an architecture for 22\."),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    folder = seal_language_model(tmp_path / "lm")
    path = folder / name
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    manifest = artifacts.read_manifest(folder)
    assert manifest is not None
    record = artifacts.FileRecord(sha256=artifacts.hash_file(path), size_bytes=path.stat().st_size)
    changed = manifest.model_copy(update={"files": {**manifest.files, name: record}}).sealed()
    (folder / "manifest.json").write_text(changed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_language_model_bundle(folder, FP32)
