"""Tensors in the file format of `torch.save`, written without pickle.

Such a file is a zip archive: the numbers of each tensor under `data/`, and instructions in `data.pkl` that put a
dictionary of tensors together. fastai reads no other form. The instructions are written out here one by one: they name
tensors and nothing else, so the file also loads with torch's `weights_only=True`.
"""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_ROOT = "archive"
_ALIGNMENT = 64
"""torch places the numbers of a tensor at multiples of this, so that they can be mapped into memory."""
_PROTOCOL_2, _STOP = b"\x80\x02", b"."
_EMPTY_DICT, _SETITEMS = b"}", b"u"
_MARK, _TUPLE, _EMPTY_TUPLE = b"(", b"t", b")"
_PERSISTENT_ID, _REDUCE, _FALSE = b"Q", b"R", b"\x89"
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
_FLOAT_STORAGE = b"ctorch\nFloatStorage\n"
_ORDERED_DICT = b"ccollections\nOrderedDict\n"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write float32 tensors by name, in their order; those that share their numbers are stored once.

    The same tensors give the same bytes.
    """
    storages: dict[int, Tensor] = {}
    numbers: dict[int, int] = {}
    instructions = [_PROTOCOL_2, _EMPTY_DICT, _MARK]
    for name, parameter in tensors.items():
        tensor = parameter.detach().cpu().contiguous()
        assert tensor.dtype == torch.float32, f"{name} is {tensor.dtype}"
        number = numbers.setdefault(tensor.data_ptr(), len(numbers))
        storages[number] = tensor
        instructions += [_text(name), _tensor(tensor, number)]
    instructions += [_SETITEMS, _STOP]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "data.pkl", b"".join(instructions))
        _add(archive, "byteorder", b"little")
        for number, tensor in storages.items():
            _add(archive, f"data/{number}", tensor.numpy().astype("<f4", copy=False).tobytes())
        _add(archive, "version", b"3\n")


def _tensor(tensor: Tensor, number: int) -> bytes:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`."""
    storage = _MARK + _text("storage") + _FLOAT_STORAGE + _text(str(number)) + _text("cpu") + _int(tensor.numel())
    return b"".join([
        _REBUILD, _MARK, storage, _TUPLE, _PERSISTENT_ID, _int(0), _ints(tensor.shape), _ints(tensor.stride()), _FALSE,
        _ORDERED_DICT, _EMPTY_TUPLE, _REDUCE, _TUPLE, _REDUCE,
    ])


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _ints(values: Any) -> bytes:
    return b"".join([_MARK, *map(_int, values), _TUPLE])


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")  # its date is the same on every day
    assert archive.fp is not None
    header_bytes = 30 + len(info.filename)
    padding = -(archive.fp.tell() + header_bytes + 4) % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding  # torch's own kind of padding
    archive.writestr(info, content)
