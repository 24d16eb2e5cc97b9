"""Weights on disk: safetensors files with plain names, compared key by key and shape by shape before they are loaded.

An encoder is `embedding.weight` [V, D] and, per layer i, `lstm.i.weight_ih`, `weight_hh`, `bias_ih`, `bias_hh` in
torch's gate order. fastai's wrapper names (rnns.0.module..., weight_hh_l0_raw) stay out of the files.
"""

from pathlib import Path

import torch
from fastai.text.models.awdlstm import AWD_LSTM
from fastai.text.models.core import SequentialRNN
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import InputError
from pipeline.model.stored_tensors import Tensors, read_tensors


def encoder_tensors(encoder: AWD_LSTM) -> Tensors:
    """The encoder's parameters by plain name (shared storage, not copies)."""
    tensors: Tensors = {"embedding.weight": encoder.encoder.weight}
    for i, rnn in enumerate(encoder.rnns):
        tensors[f"lstm.{i}.weight_ih"] = rnn.module.weight_ih_l0
        tensors[f"lstm.{i}.weight_hh"] = rnn.weight_hh_l0_raw
        tensors[f"lstm.{i}.bias_ih"] = rnn.module.bias_ih_l0
        tensors[f"lstm.{i}.bias_hh"] = rnn.module.bias_hh_l0
    return tensors


def decoder_tensors(model: SequentialRNN) -> Tensors:
    """The decoder's bias [V], and its weight [V, D] unless it is the embedding's."""
    decoder: nn.Linear = model[1].decoder
    tensors: Tensors = {"bias": decoder.bias}
    if decoder.weight is not model[0].encoder.weight:
        tensors["weight"] = decoder.weight
    return tensors


def head_tensors(model: SequentialRNN) -> Tensors:
    """Parameters and batch-norm statistics of a classifier's head: `i.norm.*` and `i.linear.*` of each layer i.

    Not torch's names: fastai leaves a dropout layer of probability 0 out, which shifts the numbers in them.
    """
    kinds = {nn.BatchNorm1d: "norm", nn.Linear: "linear"}
    return {
        f"{i}.{kinds[type(part)]}.{name}": tensor
        for i, layer in enumerate(model[1].layers)
        for part in layer
        if type(part) in kinds
        for name, tensor in part.state_dict().items()
    }


def language_model_encoder(model: SequentialRNN) -> AWD_LSTM:
    """The AWD_LSTM inside a language model."""
    return model[0]


def classifier_encoder(model: SequentialRNN) -> AWD_LSTM:
    """The AWD_LSTM inside a classifier."""
    return model[0].module


def save_language_model(model: SequentialRNN, folder: Path) -> None:
    """Write encoder.safetensors and decoder.safetensors."""
    save_tensors(encoder_tensors(language_model_encoder(model)), folder / "encoder.safetensors")
    save_tensors(decoder_tensors(model), folder / "decoder.safetensors")


def load_language_model(model: SequentialRNN, folder: Path) -> None:
    """Fill a language model from `folder`; InputError names the first key or shape that differs."""
    load_tensors(encoder_tensors(language_model_encoder(model)), folder / "encoder.safetensors")
    load_tensors(decoder_tensors(model), folder / "decoder.safetensors")


def save_classifier(model: SequentialRNN, folder: Path) -> None:
    """Write encoder.safetensors and head.safetensors."""
    save_tensors(encoder_tensors(classifier_encoder(model)), folder / "encoder.safetensors")
    save_tensors(head_tensors(model), folder / "head.safetensors")


def load_classifier(model: SequentialRNN, folder: Path) -> None:
    """Fill a classifier from `folder`; InputError names the first key or shape that differs."""
    load_tensors(encoder_tensors(classifier_encoder(model)), folder / "encoder.safetensors")
    load_tensors(head_tensors(model), folder / "head.safetensors")


def save_tensors(tensors: Tensors, path: Path) -> None:
    """Write tensors to a safetensors file, from whatever device they are on."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def load_tensors(into: Tensors, path: Path) -> None:
    """Copy a safetensors file into `into`; keys, shapes and types must be the same."""
    copy_tensors(into, read_tensors(path), path)


def copy_tensors(into: Tensors, found: Tensors, path: Path) -> None:
    """Copy `found`, which came from `path`, into `into`; keys, shapes and types must be the same."""
    for name in sorted(set(into) ^ set(found)):
        raise InputError(f"{path} {'lacks' if name in into else 'holds an unexpected'} tensor {name}.", _MEND)
    with torch.no_grad():
        for name, tensor in into.items():
            if tensor.shape != found[name].shape or tensor.dtype != found[name].dtype:
                raise InputError(
                    f"{path}: tensor {name} is {list(found[name].shape)} {found[name].dtype}, "
                    f"the model needs {list(tensor.shape)} {tensor.dtype}.",
                    _MEND,
                )
            tensor.copy_(found[name])


_MEND = "Use weights of the same architecture and vocabulary, or make the artifact anew with --force."
