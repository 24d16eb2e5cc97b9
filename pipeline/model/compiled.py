"""Compiling functions with numba for this processor, and the two that open the gates of an LSTM."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"fastmath": {"arcp", "contract", "nsz", "reassoc"}, "error_model": "numpy", "nogil": True}
"""Sums may be taken in any order, but numbers are not taken for granted as with `fastmath=True`: NaN is not lost."""


def compiled(function: _Function) -> _Function:
    """For the types of its first call."""
    return cast(_Function, numba.njit(**_OPTIONS)(function))


def compiled_for(*types: Any) -> Callable[[_Function], _Function]:
    """At once, for arguments of those types alone."""
    return cast(Callable[[_Function], _Function], numba.njit(types, **_OPTIONS))


@compiled
def tanh(x: Any) -> Any:
    """Lambert's continued fraction, off by less than 4e-5.

    numba's own calls a function per number, this fills vectors, as long as no division may raise (error_model).
    """
    # What is no number stays so.
    x = np.float32(7.5) if x > np.float32(7.5) else x
    x = np.float32(-7.5) if x < np.float32(-7.5) else x
    s = x * x
    above = np.float32(34459425) + s * (
        np.float32(4729725) + s * (np.float32(135135) + s * (np.float32(990) + s))
    )
    below = np.float32(34459425) + s * (
        np.float32(16216200) + s * (np.float32(945945) + s * (np.float32(13860) + s * np.float32(45)))
    )
    return x * above / below


@compiled
def sigmoid(x: Any) -> Any:
    """By `tanh`."""
    return np.float32(0.5) + np.float32(0.5) * tanh(np.float32(0.5) * x)
