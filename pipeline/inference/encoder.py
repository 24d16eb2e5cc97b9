"""The AWD_LSTM encoder as it is used: an embedding and plain LSTM layers.

Dropout is for training only, so nothing of fastai's wrappers is left. Shapes: B rows, T tokens of a step, D embedding
size, V embedding rows.
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.model.architecture import Architecture
from pipeline.model.stored_tensors import read_tensors

State = list[tuple[Tensor, Tensor]]
"""Hidden and cell state of each layer, [1, B, size]."""
_PER_LAYER = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Encoder(nn.Module):
    """ids [B, T] and the state before them -> outputs of the last layer [B, T, D] and the state after them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        # From a tensor, since the normal numbers it is drawn from otherwise make torch import its compiler: seconds.
        weight = torch.empty(architecture.rows, architecture.emb_sz)
        self.embedding = nn.Embedding.from_pretrained(weight)  # type: ignore[no-untyped-call]
        self.lstm = nn.ModuleList(
            nn.LSTM(n_in, n_out, batch_first=True) for n_in, n_out in architecture.layer_sizes
        )

    def forward(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read T more tokens of each row; `state` None is the beginning of the documents."""
        return self.read(self.embedding(ids), state)

    def read(self, embedded: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The same for tokens that are embedded already [B, T, D]."""
        output = embedded
        after: State = []
        for number, layer in enumerate(self.lstm):
            output, layer_state = layer(output, state[number] if state else None)
            after.append(layer_state)
        return output, after

    def round_to_int8(self) -> None:
        """Make the LSTM layers, float32 on a CPU, those of `int8_lstm`."""
        from pipeline.inference.int8_lstm import Int8Lstm  # numba compiles: only for those who ask for it

        self.lstm = nn.ModuleList(Int8Lstm(cast(nn.LSTM, layer)) for layer in self.lstm)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.embedding.weight.dtype


def first_rows(state: State, n_rows: int) -> State:
    """The state of the first rows of a batch; the others have ended."""
    return [(hidden[:, :n_rows].contiguous(), cell[:, :n_rows].contiguous()) for hidden, cell in state]


def load_encoder(folder: Path) -> Encoder:
    """The encoder of a sealed language model or classifier; InputError names the first tensor that does not fit."""
    architecture = Architecture.load(folder / "architecture.json")
    names = {"embedding.weight": "embedding.weight"} | {
        f"lstm.{number}.{name}_l0": f"lstm.{number}.{name}" for number in range(architecture.n_layers)
        for name in _PER_LAYER
    }
    with torch.device("meta"):  # nothing is drawn that the file overwrites
        encoder = Encoder(architecture)
    fill(encoder, folder / "encoder.safetensors", names)
    return encoder


def fill(module: nn.Module, path: Path, names: dict[str, str] | None = None) -> None:
    """Give `module`, built on the meta device, the tensors of a safetensors file.

    `names` maps the module's names to those of the file. Raises InputError, naming the first, for a tensor that is
    missing, left over, or of another shape or type.
    """
    wanted = module.state_dict()
    in_file = {name: (names or {}).get(name, name) for name in wanted}
    found = read_tensors(path)
    mend = "Restore the folder from a copy, or make the artifact anew with --force."
    for name in sorted(set(in_file.values()) ^ set(found)):
        has = "lacks" if name in in_file.values() else "holds an unexpected"
        raise InputError(f"{path} {has} tensor {name}.", mend)
    for name, tensor in wanted.items():
        given = found[in_file[name]]
        if given.shape != tensor.shape or given.dtype != tensor.dtype:
            raise InputError(
                f"{path}: tensor {in_file[name]} is {list(given.shape)} {given.dtype}, the architecture needs "
                f"{list(tensor.shape)} {tensor.dtype}.",
                mend,
            )
    module.load_state_dict({name: found[in_file[name]] for name in wanted}, assign=True)
