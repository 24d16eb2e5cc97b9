"""Weights go to disk and back unchanged, and never into another model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier, build_language_model
from pipeline.model.weights import (
    classifier_encoder,
    encoder_tensors,
    load_classifier,
    load_language_model,
    load_tensors,
    save_classifier,
    save_language_model,
)
from pipeline.training_settings import TrainClassifierSettings

ARCHITECTURE = Architecture(vocabulary_size=30, emb_sz=8, n_hid=12, n_layers=3)
HEAD = HeadShape(n_classes=3, lin_ftrs=(5,), seq_len=7, max_len=70)


def test_rows_are_a_multiple_of_eight_and_never_more_than_needed() -> None:
    assert ARCHITECTURE.rows == 32
    assert Architecture(32, 8, 12, 3).rows == 32


@pytest.mark.parametrize("tied", [True, False])
def test_language_model_round_trip(tmp_path: Path, tied: bool) -> None:
    architecture = Architecture(30, 8, 12, 3, tie_weights=tied)
    model, again = build_language_model(architecture).eval(), build_language_model(architecture).eval()
    save_language_model(model, tmp_path)
    load_language_model(again, tmp_path)
    x = torch.randint(9, 30, (4, 11))
    assert torch.equal(model(x)[0], again(x)[0])
    assert (again[1].decoder.weight is again[0].encoder.weight) == tied
    assert set(load_file(tmp_path / "decoder.safetensors")) == ({"bias"} if tied else {"bias", "weight"})
    assert list(load_file(tmp_path / "encoder.safetensors"))[:2] == ["embedding.weight", "lstm.0.bias_hh"]


def test_classifier_round_trip_and_encoder_of_a_language_model(tmp_path: Path) -> None:
    lm_folder, clas_folder = tmp_path / "lm", tmp_path / "clas"
    lm_folder.mkdir()
    clas_folder.mkdir()
    language_model = build_language_model(ARCHITECTURE)
    save_language_model(language_model, lm_folder)
    model, again = build_classifier(ARCHITECTURE, HEAD), build_classifier(ARCHITECTURE, HEAD)
    load_tensors(encoder_tensors(classifier_encoder(model)), lm_folder / "encoder.safetensors")
    for name, tensor in encoder_tensors(language_model[0]).items():
        assert torch.equal(encoder_tensors(classifier_encoder(model))[name], tensor)
    model(torch.randint(9, 30, (4, 11)))  # moves the batch norm's statistics away from their start
    save_classifier(model, clas_folder)
    load_classifier(again, clas_folder)
    x = torch.randint(9, 30, (4, 20))
    assert torch.equal(model.eval()(x)[0], again.eval()(x)[0])


def test_a_trained_classifier_loads_into_one_without_dropout(tmp_path: Path) -> None:
    trained = build_classifier(ARCHITECTURE, HEAD, TrainClassifierSettings())
    trained.train()(torch.randint(9, 30, (4, 11)))  # moves the batch norm's statistics
    save_classifier(trained, tmp_path)
    again = build_classifier(ARCHITECTURE, HEAD)
    load_classifier(again, tmp_path)
    x = torch.randint(9, 30, (4, 20))
    assert torch.equal(trained.eval()(x)[0], again.eval()(x)[0])
    assert set(load_file(tmp_path / "head.safetensors")) == {
        f"{i}.{name}" for i in (0, 1) for name in (
            "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked",
            "linear.weight",
        )
    }


def test_it_trains_and_validates_without_any_dropout() -> None:
    model = build_language_model(ARCHITECTURE)
    x = torch.randint(9, 30, (2, 6))
    trained = model.train()(x)[0]
    trained.sum().backward()
    model.reset()
    assert torch.equal(model.eval()(x)[0], trained)
    assert all(p.grad is not None for p in model.parameters())


def test_another_vocabulary_is_refused_by_tensor_name(tmp_path: Path) -> None:
    save_language_model(build_language_model(ARCHITECTURE), tmp_path)
    other = build_language_model(Architecture(60, 8, 12, 3))
    with pytest.raises(InputError, match=r"tensor embedding\.weight is \[32, 8\] .* the model needs \[64, 8\]"):
        load_language_model(other, tmp_path)


def test_missing_and_unexpected_tensors_are_refused(tmp_path: Path) -> None:
    model = build_language_model(ARCHITECTURE)
    save_language_model(model, tmp_path)
    tensors = load_file(tmp_path / "encoder.safetensors")
    removed = tensors.pop("lstm.1.weight_hh")
    save_file(tensors, tmp_path / "encoder.safetensors")
    with pytest.raises(InputError, match=r"encoder\.safetensors lacks tensor lstm\.1\.weight_hh"):
        load_language_model(model, tmp_path)
    save_file({**tensors, "lstm.1.weight_hh": removed, "extra": removed.clone()}, tmp_path / "encoder.safetensors")
    with pytest.raises(InputError, match=r"holds an unexpected tensor extra"):
        load_language_model(model, tmp_path)


def test_a_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    model = build_language_model(ARCHITECTURE)
    save_language_model(model, tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InputError, match=r"encoder\.safetensors cannot be read"):
        load_language_model(model, tmp_path)
