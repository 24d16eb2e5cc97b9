"""The recurrence of an LSTM over the tokens of one document, weights in 8 bits, compiled by numba for this processor.

Shapes: T tokens, H hidden units; the 4 H gates are in torch's order: input, forget, cell, output.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_compiled = numba.njit(fastmath={"arcp", "contract", "nsz", "reassoc"}, error_model="numpy", nogil=True)
"""Sums may be taken in any order, but numbers are not taken for granted as with `fastmath=True`: NaN is not lost."""


def _tanh_of(x: Any) -> Any:
    # Lambert's continued fraction, off by less than 4e-5: numba's own calls a function per number, this fills vectors,
    # as long as no division may raise (error_model).
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


_tanh = _compiled(_tanh_of)


def _sigmoid_of(x: Any) -> Any:
    return np.float32(0.5) + np.float32(0.5) * _tanh(np.float32(0.5) * x)


_sigmoid = _compiled(_sigmoid_of)


def _read(  # noqa: PLR0917  numba hands arguments over by position
    gates_TG: Floats, weight_GH: NDArray[np.int8], scale_G: Floats, hidden_H: Floats, cell_H: Floats,
    outputs_TH: Floats,
) -> None:
    n_gates, n_hid = weight_GH.shape
    recurrent_G = np.empty(n_gates, np.float32)
    for t in range(len(gates_TG)):
        for g in range(0, n_gates, 4):  # four rows at a time: each hidden unit is loaded once for all of them
            a = b = c = d = np.float32(0)
            for k in range(n_hid):
                unit = hidden_H[k]
                a += np.float32(weight_GH[g, k]) * unit
                b += np.float32(weight_GH[g + 1, k]) * unit
                c += np.float32(weight_GH[g + 2, k]) * unit
                d += np.float32(weight_GH[g + 3, k]) * unit
            recurrent_G[g], recurrent_G[g + 1], recurrent_G[g + 2], recurrent_G[g + 3] = a, b, c, d
        for j in range(n_hid):
            f, m, o = n_hid + j, 2 * n_hid + j, 3 * n_hid + j
            read = _sigmoid(gates_TG[t, j] + scale_G[j] * recurrent_G[j])
            kept = _sigmoid(gates_TG[t, f] + scale_G[f] * recurrent_G[f])
            fresh = _tanh(gates_TG[t, m] + scale_G[m] * recurrent_G[m])
            shown = _sigmoid(gates_TG[t, o] + scale_G[o] * recurrent_G[o])
            cell_H[j] = kept * cell_H[j] + read * fresh
            hidden_H[j] = shown * _tanh(cell_H[j])
            outputs_TH[t, j] = hidden_H[j]


read_document = _compiled(_read)
"""Read T tokens: gates_TG holds what their inputs and the biases add to the gates. Writes the outputs, and the state
after them over the state before them."""
