"""Arrays into files, without numpy's own way: `tofile`, and `np.save` by it, hand a file to C, whose last few kilobytes
are lost without a word if the disk is full when it is closed."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


def append_array(stream: BinaryIO, values: npt.NDArray[Any]) -> None:
    """Write the plain bytes of `values`; OSError if they do not fit."""
    stream.write(np.ascontiguousarray(values).data)


def save_array(path: Path, values: npt.NDArray[Any]) -> None:
    """Write `values` as np.save does; OSError if they do not fit."""
    content = io.BytesIO()
    np.save(content, values)
    path.write_bytes(content.getbuffer())
