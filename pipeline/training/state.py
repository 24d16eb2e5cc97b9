"""Trees of tensors and plain values as one safetensors and one JSON file: bit for bit, and no pickle.

A tree is made of dictionaries with string keys, lists, tensors, strings, numbers, booleans and None; tuples come back
as lists. Tensors come back on the CPU.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_MARK = "tensor:"
"""A string that starts with this is a tensor's name in the other file; no other string of a state does."""


def write_state(tree: Any, folder: Path) -> None:
    """Write `state.json` and `state.safetensors` into `folder`."""
    tensors: dict[str, Tensor] = {}
    plain = _walk(tree, tensors)
    # Copies, since safetensors refuses tensors that share their storage.
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    save_file(copies, folder / "state.safetensors")
    (folder / "state.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def read_state(folder: Path) -> Any:
    """What `write_state` wrote."""
    tensors = load_file(folder / "state.safetensors")
    return _attach(read_plain(folder), tensors)


def read_plain(folder: Path) -> Any:
    """The same with tensors' names in their place, read without loading them."""
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def size_bytes(tree: Any) -> int:
    """Bytes of all tensors of a tree."""
    tensors: dict[str, Tensor] = {}
    _walk(tree, tensors)
    return sum(tensor.nbytes for tensor in tensors.values())


def _walk(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """`tree` with every tensor put into `tensors` and replaced by its name there."""
    if isinstance(tree, Tensor):
        name = str(len(tensors))
        tensors[name] = tree
        return _MARK + name
    if isinstance(tree, dict):
        return {str(key): _walk(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_walk(value, tensors) for value in tree]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"a state cannot hold {type(tree).__name__}")


def _attach(plain: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(plain, str) and plain.startswith(_MARK):
        return tensors[plain.removeprefix(_MARK)]
    if isinstance(plain, dict):
        return {key: _attach(value, tensors) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_attach(value, tensors) for value in plain]
    return plain


def generator_states(device: torch.device) -> dict[str, Any]:
    """The state of every random generator that training on `device` draws from."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_generators(states: dict[str, Any], device: torch.device) -> None:
    """Put every random generator back to `states`, whichever device of its kind they were taken on."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)
