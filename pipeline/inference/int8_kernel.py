"""The recurrence of an LSTM over the tokens of one document, weights in 8 bits, compiled by numba for this processor.

Shapes: T tokens, H hidden units; the 4 H gates are in torch's order: input, forget, cell, output.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.model.compiled import Floats, compiled, sigmoid, tanh


@compiled
def read_document(  # noqa: PLR0917  numba hands arguments over by position
    gates_TG: Floats, weight_GH: NDArray[np.int8], scale_G: Floats, hidden_H: Floats, cell_H: Floats,
    outputs_TH: Floats,
) -> None:
    """Read T tokens: gates_TG holds what their inputs and the biases add to the gates.

    Writes the outputs, and the state after them over the state before them.
    """
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
            read = sigmoid(gates_TG[t, j] + scale_G[j] * recurrent_G[j])
            kept = sigmoid(gates_TG[t, f] + scale_G[f] * recurrent_G[f])
            fresh = tanh(gates_TG[t, m] + scale_G[m] * recurrent_G[m])
            shown = sigmoid(gates_TG[t, o] + scale_G[o] * recurrent_G[o])
            cell_H[j] = kept * cell_H[j] + read * fresh
            hidden_H[j] = shown * tanh(cell_H[j])
            outputs_TH[t, j] = hidden_H[j]
