"""A sealed language model under fastai's names: the way back from `pipeline.model.fastai_weights`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
from fastai.text.models.core import get_language_model

from pipeline.model.architecture import Architecture
from pipeline.model.stored_tensors import Tensors, read_tensors
from pipeline.model.weights import copy_tensors, decoder_tensors, encoder_tensors


@dataclass(frozen=True)
class FastaiState:
    """What fastai's `save` would have written, but for the optimizer."""

    tensors: Tensors
    """`0.encoder.weight` [V, D] and so on, in the order of fastai's own model."""
    config: dict[str, Any]
    """Entries of `awd_lstm_lm_config` that build the model."""


def fastai_state(folder: Path, vocabulary: Sequence[str]) -> FastaiState:
    """The state of fastai's model with exactly the rows of `vocabulary`, filled from the language model in `folder`.

    Rows that no token uses stay behind: fastai's `match_embeds` would count them into its mean. Raises InputError if
    the files do not fit together.
    """
    architecture = Architecture.load(folder / "architecture.json")
    config = {
        "emb_sz": architecture.emb_sz, "n_hid": architecture.n_hid, "n_layers": architecture.n_layers,
        "tie_weights": architecture.tie_weights,
    }
    model = get_language_model(AWD_LSTM, len(vocabulary), {**awd_lstm_lm_config, **config})
    for into, name in ((encoder_tensors(model[0]), "encoder"), (decoder_tensors(model), "decoder")):
        path = folder / f"{name}.safetensors"
        found = read_tensors(path)
        for key in found.keys() & {"embedding.weight", "weight", "bias"}:
            found[key] = found[key][: len(vocabulary)]
        copy_tensors(into, found, path)
    model.reset()
    return FastaiState(dict(model.state_dict()), config)
