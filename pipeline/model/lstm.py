"""An LSTM whose gradients in bfloat16 are right on every CPU, and fast.

On processors with AMX oneDNN's backward pass of a bfloat16 LSTM is wrong from 1,024 hidden units on where they are a
multiple of 32 (seen with torch 2.14.1, at 1,024, 1,120, 1,152, 1,280 and 1,536): the gradient of what the layer reads
is as far from the true one as if it had been drawn, and no error tells. On every CPU that pass takes a time for each
call that grows with the weights, not with the rows, and the forward pass keeps five times the gates for it.
Shapes: B rows, T tokens, I inputs, H hidden units, G = 4 H gates.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

State = tuple[Tensor, Tensor]
"""Hidden and cell state, [1, B, H] each."""

FEW_PRODUCTS = 450_000
"""Up to so many, H x (I + H), torch's LSTM is as fast as ours or faster: measured from 2 to 64 rows of 72 tokens, which
CHANGELOG.md lists, on an AMD with avx512_bf16."""


class Lstm(nn.LSTM):
    """`nn.LSTM` of one layer in one direction, batch first; it learns by `_Recurrence` where torch errs or is slow."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def forward(self, input: Tensor | PackedSequence, hx: State | None = None) -> Any:
        """Outputs [B, T, H] and the state after them, as `nn.LSTM` gives them."""
        if not isinstance(input, Tensor) or hx is None or not self.learns_by_recurrence():
            return super().forward(input, hx)
        parts = (input, *hx, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
        if not any(part.requires_grad for part in parts):  # a frozen encoder: no way back
            return super().forward(input, hx)
        rows_BTI, before_BH, cell_BH = input.to(torch.bfloat16), hx[0][0].to(torch.bfloat16), hx[1][0].float()
        bias_G = (self.bias_ih_l0 + self.bias_hh_l0).to(torch.bfloat16)
        weights = self.weight_ih_l0.to(torch.bfloat16), self.weight_hh_l0.to(torch.bfloat16), bias_G
        with torch.autocast("cpu", enabled=False):
            outputs_BTH, after_BH, cell_BH = _Recurrence.apply(rows_BTI, before_BH, cell_BH, *weights)
        return outputs_BTH, (after_BH[None], cell_BH[None].to(torch.bfloat16))

    def learns_by_recurrence(self) -> bool:
        """True if it would learn by `_Recurrence` now: only in bfloat16, on a CPU."""
        many = self.hidden_size * (self.input_size + self.hidden_size) > FEW_PRODUCTS
        return self._learns_in_bf16() if many else self.is_wrong_in_torch()

    def is_wrong_in_torch(self) -> bool:
        """True if torch's LSTM would give wrong gradients now."""
        return self._learns_in_bf16() and not torch_learns(self.input_size, self.hidden_size)

    def _learns_in_bf16(self) -> bool:
        return (
            self.weight_ih_l0.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16 and bool(torch.backends.mkldnn.enabled)
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
    """The LSTM of torch's documentation in bfloat16; gates in its order: input, forget, cell, output.

    Products over all tokens at once but for those with the hidden state. The cell state is float32.
    """

    @staticmethod
    def forward(  # noqa: PLR0917  torch hands arguments over by position
        ctx: Any, rows_BTI: Tensor, before_BH: Tensor, cell_BH: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        from pipeline.model.lstm_cell import read_token  # numba takes a second to import, and two to compile

        rows_TBI = rows_BTI.transpose(0, 1).contiguous()
        n_tokens, n_rows, _ = rows_TBI.shape
        gates_TBG = F.linear(rows_TBI, w_ih, bias)
        hidden_TBH = before_BH.new_empty(n_tokens + 1, n_rows, w_hh.shape[1])
        cells_TBH = cell_BH.new_empty(hidden_TBH.shape)
        hidden_TBH[0], cells_TBH[0] = before_BH, cell_BH
        product = _product_with(w_hh, n_rows)
        gates, cells, hidden = _bits(gates_TBG), cells_TBH.numpy(), _bits(hidden_TBH)
        for t in range(n_tokens):
            read_token(gates[t], _bits(product(hidden_TBH[t])), cells[t], cells[t + 1], hidden[t + 1])
        ctx.save_for_backward(rows_TBI, hidden_TBH, cells_TBH, gates_TBG, w_ih, w_hh)
        return hidden_TBH[1:].transpose(0, 1), hidden_TBH[-1].clone(), cells_TBH[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from pipeline.model.lstm_cell import follow_token_back

        rows_TBI, hidden_TBH, cells_TBH, gates_TBG, w_ih, w_hh = ctx.saved_tensors
        n_tokens, n_rows, n_gates = gates_TBG.shape
        to_output_TBH, to_hidden_BH = gradients[0].transpose(0, 1).contiguous(), gradients[1].contiguous()
        to_cell_BH = gradients[2].clone(memory_format=torch.contiguous_format)
        to_gates_TBG = torch.empty_like(gates_TBG)
        product = _product_with(w_hh.t().contiguous(), n_rows)
        gates, cells, to_cell = _bits(gates_TBG), cells_TBH.numpy(), to_cell_BH.numpy()
        to_output, to_gates = _bits(to_output_TBH), _bits(to_gates_TBG)
        for t in reversed(range(n_tokens)):
            to_hidden = _bits(to_hidden_BH)
            follow_token_back(gates[t], cells[t], cells[t + 1], to_output[t], to_hidden, to_cell, to_gates[t])
            to_hidden_BH = product(to_gates_TBG[t])
        of_gates = to_gates_TBG.view(n_tokens * n_rows, n_gates)
        needed = ctx.needs_input_grad
        return (
            (of_gates @ w_ih).view_as(rows_TBI).transpose(0, 1) if needed[0] else None,
            to_hidden_BH,
            to_cell_BH,
            of_gates.t() @ rows_TBI.flatten(0, 1) if needed[3] else None,
            of_gates.t() @ hidden_TBH[:-1].flatten(0, 1) if needed[4] else None,
            of_gates.sum(0) if needed[5] else None,
        )


def _product_with(weight_NK: Tensor, n_rows: int) -> Callable[[Tensor], Tensor]:
    """`F.linear` by that weight, for many calls: laid out once for oneDNN, which would else do so in each of them.

    With 16 rows less than half the time, with 64 four fifths.
    """
    if not _torch_lays_out():
        return lambda rows: F.linear(rows, weight_NK)
    kernels = torch.ops.mkldnn
    laid_out = kernels._reorder_linear_weight(weight_NK, n_rows)
    return lambda rows: kernels._linear_pointwise(rows, laid_out, None, "none", [], "")


@cache
def _torch_lays_out() -> bool:
    """True if torch has the two operators, which have no public name (its own compiler writes them), for this CPU."""
    kernels, ones = torch.ops.mkldnn, torch.ones(16, 16, dtype=torch.bfloat16)
    try:
        found = kernels._linear_pointwise(ones, kernels._reorder_linear_weight(ones, 16), None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(found, 16 * ones)


def _bits(numbers: Tensor) -> Any:
    """Those of bfloat16 as an array over the same memory."""
    return numbers.view(torch.uint16).numpy()
