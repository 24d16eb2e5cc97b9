"""LSTM layers whose weights are rounded to 8 bits, for texts that come one at a time.

A batch of one reads every recurrent weight once a token, so that their bytes are its time: 8 bits halve those of
bfloat16. Only weights are rounded; what torch's quantized LSTM does, to round the activations too, moved probabilities
by up to 0.5. Shapes: B rows, T tokens, I inputs, H hidden units, G = 4 H gates.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.inference.int8_kernel import read_document
from pipeline.model.stored_tensors import in_steps

_State = tuple[Tensor, Tensor]


class Int8Lstm(nn.Module):
    """`nn.LSTM` of one layer, batch first, on a CPU: one row by the kernel, several, or with gradients, by torch.

    Both have the same rounded weights. The kernel's recurrence is float32, its products with the inputs are of the type
    of `lstm`, as are outputs and states.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        weight_GI, weight_GH, _, _ = lstm.parameters()
        with torch.no_grad():
            for weight in (weight_GI, weight_GH):
                steps, scale_G = in_steps(weight)
                weight.copy_(steps * scale_G[:, None])
        self._steps_GH, self._scale_G = steps.numpy(), scale_G.numpy()  # of the recurrent weights, the last
        self.lstm = lstm

    def forward(self, rows_BTI: Tensor, state: _State | None = None) -> tuple[Tensor, _State]:
        """Outputs [B, T, H] and the state after them, [1, B, H] each."""
        if len(rows_BTI) != 1 or torch.is_grad_enabled():
            return cast("tuple[Tensor, _State]", self.lstm(rows_BTI, state))
        weight_GI, _, bias_ih_G, bias_hh_G = self.lstm.parameters()
        gates_TG = F.linear(rows_BTI[0], weight_GI, bias_ih_G + bias_hh_G)
        before = state or (rows_BTI.new_zeros(1, 1, self.lstm.hidden_size),) * 2
        hidden_H, cell_H = (np.array(part.float().flatten().numpy()) for part in before)  # copies, to be written over
        outputs_TH = np.empty((len(gates_TG), self.lstm.hidden_size), dtype=np.float32)
        read_document(gates_TG.float().numpy(), self._steps_GH, self._scale_G, hidden_H, cell_H, outputs_TH)
        outputs_BTH, after_BH, cell_BH = (
            torch.from_numpy(part).to(rows_BTI.dtype)[None] for part in (outputs_TH, hidden_H[None], cell_H[None])
        )
        return outputs_BTH, (after_BH, cell_BH)
