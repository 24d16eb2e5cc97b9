"""What an LSTM does with one token beside its products, compiled by numba for this processor.

Shapes: B rows, H hidden units; the 4 H gates are in torch's order: input, forget, cell, output. Numbers in bfloat16
come and go as their bits, which numba has no type for; all that is reckoned is float32. One thread does it: with
vectors it takes a small part of the time of the products, and threads of its own would disturb torch's.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from pipeline.model.compiled import Floats, compiled, compiled_for, sigmoid, tanh

Bits = NDArray[np.uint16]
"""Of bfloat16."""
_FLOATS, _BITS = numba.float32[:, ::1], numba.uint16[:, ::1]


@compiled
def _widen(bits: Any, into: Any) -> None:
    """bfloat16 is the upper half of float32."""
    for j in range(len(bits)):
        into[j] = np.uint32(bits[j]) << np.uint32(16)


@compiled
def _round(wide: Any, into: Any) -> None:
    """To the nearest, of two as near the even one, as torch does. What is no number stays so."""
    for j in range(len(wide)):
        odd = (wide[j] >> np.uint32(16)) & np.uint32(1)
        into[j] = np.uint16((wide[j] + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@compiled_for(_BITS, _BITS, _FLOATS, _FLOATS, _BITS)
def read_token(
    gates_B4H: Bits, recurrent_B4H: Bits, before_BH: Floats, after_BH: Floats, hidden_BH: Bits
) -> None:
    """The sums of both products become the gates, in place; writes the cell state after the token, and the output."""
    n_gates = gates_B4H.shape[1]
    n = n_gates // 4
    wide, wide_recurrent = np.empty(n_gates, np.uint32), np.empty(n_gates, np.uint32)
    wide_hidden = np.empty(n, np.uint32)
    gates, recurrent, hidden = wide.view(np.float32), wide_recurrent.view(np.float32), wide_hidden.view(np.float32)
    read, kept, fresh, shown = gates[:n], gates[n : 2 * n], gates[2 * n : 3 * n], gates[3 * n :]
    for b in range(len(gates_B4H)):
        _widen(gates_B4H[b], wide)
        _widen(recurrent_B4H[b], wide_recurrent)
        before, after = before_BH[b], after_BH[b]
        for j in range(n):
            read[j] = sigmoid(read[j] + recurrent[j])
            kept[j] = sigmoid(kept[j] + recurrent[n + j])
            fresh[j] = tanh(fresh[j] + recurrent[2 * n + j])
            shown[j] = sigmoid(shown[j] + recurrent[3 * n + j])
            after[j] = kept[j] * before[j] + read[j] * fresh[j]
            hidden[j] = shown[j] * tanh(after[j])
        _round(wide, gates_B4H[b])
        _round(wide_hidden, hidden_BH[b])


@compiled_for(_BITS, _FLOATS, _FLOATS, _BITS, _BITS, _FLOATS, _BITS)
def follow_token_back(  # noqa: PLR0917  numba hands arguments over by position
    gates_B4H: Bits, before_BH: Floats, after_BH: Floats, to_output_BH: Bits, to_hidden_BH: Bits, to_cell_BH: Floats,
    to_gates_B4H: Bits,
) -> None:
    """From the gradients of the output, by what follows the layer and by its next token, to those of the sums.

    `to_cell_BH` is the gradient of the cell state after the token, and then of that before it.
    """
    n_gates = gates_B4H.shape[1]
    n = n_gates // 4
    wide, wide_back = np.empty(n_gates, np.uint32), np.empty(n_gates, np.uint32)
    wide_output, wide_hidden = np.empty(n, np.uint32), np.empty(n, np.uint32)
    gates, back = wide.view(np.float32), wide_back.view(np.float32)
    to_output, to_hidden = wide_output.view(np.float32), wide_hidden.view(np.float32)
    one = np.float32(1)
    for b in range(len(gates_B4H)):
        _widen(gates_B4H[b], wide)
        _widen(to_output_BH[b], wide_output)
        _widen(to_hidden_BH[b], wide_hidden)
        before, after, to_cell = before_BH[b], after_BH[b], to_cell_BH[b]
        for j in range(n):
            read, kept, fresh, shown = gates[j], gates[n + j], gates[2 * n + j], gates[3 * n + j]
            along, level = to_output[j] + to_hidden[j], tanh(after[j])
            cell = to_cell[j] + along * shown * (one - level * level)
            back[j] = cell * fresh * read * (one - read)
            back[n + j] = cell * before[j] * kept * (one - kept)
            back[2 * n + j] = cell * read * (one - fresh * fresh)
            back[3 * n + j] = along * level * shown * (one - shown)
            to_cell[j] = cell * kept
        _round(wide_back, to_gates_B4H[b])
