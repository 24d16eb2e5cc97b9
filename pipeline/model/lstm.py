"""An LSTM whose gradients are right in bfloat16 on every CPU.

On processors with AMX oneDNN's backward pass of a bfloat16 LSTM is wrong from 1,024 hidden units on where they are a
multiple of 32 (seen with torch 2.14.1, at 1,024, 1,120, 1,152, 1,280 and 1,536): the gradient of what the layer reads
is as far from the true one as if it had been drawn, and no error tells.
Shapes: B rows, T tokens, I inputs, H hidden units, G = 4 H gates.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

State = tuple[Tensor, Tensor]
"""Hidden and cell state, [1, B, H] each."""


class Lstm(nn.LSTM):
    """`nn.LSTM` of one layer in one direction, batch first, which learns by `_Recurrence` where torch would err."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def forward(self, input: Tensor | PackedSequence, hx: State | None = None) -> Any:
        """Outputs [B, T, H] and the state after them, as `nn.LSTM` gives them."""
        if not isinstance(input, Tensor) or hx is None or not self.learns_by_recurrence():
            return super().forward(input, hx)
        dtype = torch.get_autocast_dtype("cpu")
        rows_BTI, before_BH, cell_BH = input.to(dtype), hx[0][0].to(dtype), hx[1][0].float()
        bias_G = (self.bias_ih_l0 + self.bias_hh_l0).to(dtype)
        weights = self.weight_ih_l0.to(dtype), self.weight_hh_l0.to(dtype), bias_G
        with torch.autocast("cpu", enabled=False):
            outputs_BTH, after_BH, cell_BH = _Recurrence.apply(rows_BTI, before_BH, cell_BH, *weights)
        return outputs_BTH, (after_BH[None], cell_BH[None].to(dtype))

    def learns_by_recurrence(self) -> bool:
        """True if torch's LSTM would give wrong gradients now: under autocast in bfloat16, on a CPU where it errs."""
        return (
            self.weight_ih_l0.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16 and bool(torch.backends.mkldnn.enabled)
            and not torch_learns(self.input_size, self.hidden_size)
        )


@cache
def torch_learns(n_in: int, n_hid: int) -> bool:
    """True if torch's gradients of an LSTM of this size in bfloat16 are near those in float32 on this CPU.

    Tried out, since it depends on the processor and on oneDNN's version; takes some 0.1 s and no random number of the
    training's.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        lstm = nn.LSTM(n_in, n_hid, batch_first=True).requires_grad_(False)
        rows_BTI, towards_BTH = torch.randn(4, 3, n_in), torch.randn(4, 3, n_hid)
        gradients = []
        for dtype in (torch.float32, torch.bfloat16):
            read_BTI = rows_BTI.to(dtype).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                outputs_BTH, _ = lstm(read_BTI)
            gradients.append(torch.autograd.grad(outputs_BTH, read_BTI, towards_BTH.to(outputs_BTH.dtype))[0].float())
    right, found = gradients
    return bool((found - right).norm() < 0.1 * right.norm())  # where it is right 0.005, where not about 1.1


class _Recurrence(Function):
    """The LSTM of torch's documentation; gates in its order: input, forget, cell, output.

    Products over all tokens at once but for those with the hidden state. The cell state is float32, all else of the
    type of what is read.
    """

    @staticmethod
    def forward(  # noqa: PLR0917  torch hands arguments over by position
        ctx: Any, rows_BTI: Tensor, before_BH: Tensor, cell_BH: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        n_hid = w_hh.shape[1]
        rows_TBI = rows_BTI.transpose(0, 1).contiguous()
        n_tokens, n_rows, _ = rows_TBI.shape
        gates_TBG = F.linear(rows_TBI, w_ih, bias)
        hidden_TBH = before_BH.new_empty(n_tokens + 1, n_rows, n_hid)
        cells_TBH = cell_BH.new_empty(n_tokens + 1, n_rows, n_hid)
        hidden_TBH[0], cells_TBH[0] = before_BH, cell_BH
        w_hh_t, tanh_BH = w_hh.t(), torch.empty_like(cell_BH)
        for t, gates_BG in enumerate(gates_TBG):
            gates_BG.addmm_(hidden_TBH[t], w_hh_t)
            read, forgotten, fresh, shown = gates_BG.chunk(4, 1)
            gates_BG[:, : 2 * n_hid].sigmoid_()
            fresh.tanh_()
            shown.sigmoid_()
            torch.mul(cells_TBH[t], forgotten, out=cells_TBH[t + 1]).addcmul_(read, fresh)
            torch.tanh(cells_TBH[t + 1], out=tanh_BH)
            torch.mul(tanh_BH, shown, out=hidden_TBH[t + 1])
        ctx.save_for_backward(rows_TBI, hidden_TBH, cells_TBH, gates_TBG, w_ih, w_hh)
        return hidden_TBH[1:].transpose(0, 1), hidden_TBH[-1].clone(), cells_TBH[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        towards_BTH, after_BH, cell_BH = gradients
        rows_TBI, hidden_TBH, cells_TBH, gates_TBG, w_ih, w_hh = ctx.saved_tensors
        n_tokens, n_rows, n_hid = hidden_TBH[1:].shape
        gates_TB4H = gates_TBG.view(n_tokens, n_rows, 4, n_hid)
        read, forgotten, fresh, shown = gates_TB4H.unbind(2)
        tanh = cells_TBH[1:].tanh().to(gates_TBG.dtype)
        # What each gate's gradient is per gradient of the cell state, of the output gate per gradient of the output.
        slopes_TB4H = torch.addcmul(gates_TB4H, gates_TB4H, gates_TB4H, value=-1)
        slopes_TB4H[:, :, 0].mul_(fresh)
        slopes_TB4H[:, :, 1].mul_(cells_TBH[:-1])
        torch.addcmul(read, fresh * fresh, read, value=-1, out=slopes_TB4H[:, :, 2])
        slopes_TB4H[:, :, 3].mul_(tanh)
        to_cell_TBH = torch.addcmul(shown, tanh * tanh, shown, value=-1)
        towards_TBH = towards_BTH.transpose(0, 1).contiguous()
        cell_BH, hidden_BH = cell_BH.clone(), after_BH
        for t in reversed(range(n_tokens)):
            hidden_BH = hidden_BH + towards_TBH[t]
            cell_BH.addcmul_(hidden_BH, to_cell_TBH[t])
            slopes_TB4H[t, :, :3].mul_(cell_BH[:, None])
            slopes_TB4H[t, :, 3].mul_(hidden_BH)
            cell_BH.mul_(forgotten[t])
            hidden_BH = slopes_TB4H[t].view(n_rows, -1) @ w_hh
        of_gates = slopes_TB4H.view(n_tokens * n_rows, -1)
        needed = ctx.needs_input_grad
        return (
            (of_gates @ w_ih).view_as(rows_TBI).transpose(0, 1) if needed[0] else None,
            hidden_BH,
            cell_BH,
            of_gates.t() @ rows_TBI.flatten(0, 1) if needed[3] else None,
            of_gates.t() @ hidden_TBH[:-1].flatten(0, 1) if needed[4] else None,
            of_gates.sum(0) if needed[5] else None,
        )
