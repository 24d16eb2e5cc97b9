"""Tensors in safetensors files: as they are, or in fewer bits, for models that are given away.

`int8` keeps a matrix as integers of -127 to 127 and, per row, the float32 that one step is worth (`NAME.scale`), chosen
so that the row's largest number is 127 steps: nothing is off by more than half a step. `bf16` keeps a matrix in
bfloat16. Vectors and small matrices stay float32: they weigh nothing, and a head's few numbers count. Whatever the file
keeps, reading gives float32.
"""

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import InputError

Tensors = dict[str, Tensor]
Storage = Literal["int8", "bf16", "float32"]
SCALE = ".scale"
SMALL = 65_536
"""Numbers of a matrix that is not worth storing in fewer bits."""
_STEPS = 127


def read_tensors(path: Path) -> Tensors:
    """All tensors of a safetensors file, those stored in fewer bits as float32; InputError if it is damaged."""
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Restore it or make the artifact anew.") from error
    return {name: _restored(name, tensor, found) for name, tensor in found.items() if not _is_scale(name, found)}


def in_fewer_bits(tensors: Tensors, storage: Storage) -> Tensors:
    """What a file keeps of float32 `tensors`: large matrices in `storage`, everything else as it is."""
    kept: Tensors = {}
    for name, tensor in tensors.items():
        if storage == "float32" or tensor.dim() != 2 or tensor.numel() < SMALL or tensor.dtype != torch.float32:
            kept[name] = tensor
        elif storage == "bf16":
            kept[name] = tensor.to(torch.bfloat16)
        else:
            steps, scale = in_steps(tensor)
            kept |= {name: steps, name + SCALE: scale}
    return kept


def in_steps(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A float32 matrix [N, M] as int8 steps [N, M] and what a step is worth in each row, float32 [N]."""
    scale = matrix.abs().amax(dim=1) / _STEPS
    steps = matrix / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    return steps.round().to(torch.int8), scale


def _is_scale(name: str, found: Tensors) -> bool:
    return name.endswith(SCALE) and name.removesuffix(SCALE) in found


def _restored(name: str, tensor: Tensor, found: Tensors) -> Tensor:
    scale = found.get(name + SCALE)
    if tensor.dtype == torch.int8 and scale is not None and scale.shape == tensor.shape[:1]:
        return tensor.float() * scale[:, None]
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
