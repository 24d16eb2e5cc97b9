"""The LSTM's gradients: in bfloat16 near those in float32, at every size and on every CPU."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.model import lstm as lstm_module
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.lstm import Lstm, State
from pipeline.training.device import Device, onednn_has_bf16

N_ROWS, N_TOKENS = 5, 7
ROUNDING = 2**-8
"""Of bfloat16, the largest relative."""


def gradients(layer: nn.LSTM, rows: Tensor, before: State, towards: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """Outputs and states, and the gradients of what was read, the states before and the weights."""
    read = [part.detach().requires_grad_() for part in (rows, *before)]
    outputs, after = layer(read[0], (read[1], read[2]))
    found = (outputs, *after)
    along = [t.to(f.dtype) for t, f in zip(towards, found, strict=True)]
    back = torch.autograd.grad(found, [*read, *layer.parameters()], along)
    return [*(part.detach() for part in found), *back]


def relative_errors(found: list[Tensor], right: list[Tensor]) -> list[float]:
    return [float((f.float() - r).norm() / r.norm()) for f, r in zip(found, right, strict=True)]


def case(n_in: int, n_hid: int) -> tuple[Lstm, Tensor, State, tuple[Tensor, Tensor, Tensor]]:
    torch.manual_seed(1)
    state = (1, N_ROWS, n_hid)
    towards = torch.randn(N_ROWS, N_TOKENS, n_hid), torch.randn(state), torch.randn(state)
    layer = Lstm(n_in, n_hid, batch_first=True)
    return layer, torch.randn(N_ROWS, N_TOKENS, n_in), (torch.randn(state), torch.randn(state)), towards


@pytest.mark.parametrize("size", [(12, 8), (400, 768), (400, 1150), (400, 1152), (1152, 400), (1024, 1024)])
def test_gradients_in_bf16_are_near_those_in_fp32(size: tuple[int, int]) -> None:
    """oneDNN's are not at (400, 1152) and (1024, 1024) on a processor with AMX."""
    parts = case(*size)
    right = gradients(*parts)
    device = Device(torch.device("cpu"), "bf16", "bf16")
    with device.kernels(), device.autocast():
        found = gradients(*parts)
    assert found[0].dtype == torch.bfloat16
    assert max(relative_errors(found, right)) < 0.02


@pytest.fixture
def torch_errs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this CPU's gradients were wrong at every size."""
    monkeypatch.setattr(lstm_module, "torch_learns", lambda n_in, n_hid: False)


def test_big_layers_learn_by_the_own_kernel_whatever_the_cpu() -> None:
    """Those of a language model with 768 units and two layers do, a small one and one that only reads do not."""
    device = Device(torch.device("cpu"), "bf16", "bf16")
    with device.kernels(), device.autocast():
        found = [Lstm(*size).learns_by_recurrence() for size in ((400, 768), (768, 400), (1152, 1152), (400, 256))]
        assert found == [size_found and onednn_has_bf16() for size_found in (True, True, True, False)]
        with torch.no_grad():
            assert not Lstm(400, 768).learns_by_recurrence()
    assert not Lstm(400, 768).learns_by_recurrence()


@pytest.mark.usefixtures("torch_errs")
@pytest.mark.parametrize("size", [(12, 8), (400, 768), (33, 65)])
def test_the_own_kernel_does_what_torchs_does(size: tuple[int, int]) -> None:
    parts = case(*size)
    assert not parts[0].learns_by_recurrence()
    right = gradients(*parts)
    with torch.autocast("cpu", torch.bfloat16):
        assert parts[0].learns_by_recurrence()
        found = gradients(*parts)
    assert max(relative_errors(found, right)) < 0.02


def test_one_token_is_exact_but_for_the_rounding_of_what_leaves() -> None:
    """Against autograd in float64, from the same numbers in bfloat16."""
    from pipeline.model.lstm_cell import follow_token_back, read_token

    torch.manual_seed(4)
    n_rows, n_hid = 5, 33
    sums, recurrent = (torch.randn(n_rows, 4 * n_hid).mul(3).bfloat16() for _ in range(2))
    to_output, to_hidden = (torch.randn(n_rows, n_hid).bfloat16() for _ in range(2))
    before, to_cell = torch.randn(n_rows, n_hid), torch.randn(n_rows, n_hid)
    gates, after, output = sums.clone(), torch.empty_like(before), torch.empty_like(to_output)
    to_sums, to_before = torch.empty_like(sums), to_cell.clone()
    bits = lstm_module._bits
    read_token(bits(gates), bits(recurrent), before.numpy(), after.numpy(), bits(output))
    follow_token_back(
        bits(gates), before.numpy(), after.numpy(), bits(to_output), bits(to_hidden), to_before.numpy(), bits(to_sums)
    )
    total = sums.double() + recurrent.double()
    read, kept, fresh, shown = total.chunk(4, 1)
    wanted = torch.cat([read.sigmoid(), kept.sigmoid(), fresh.tanh(), shown.sigmoid()], 1)
    torch.testing.assert_close(gates.double(), wanted, rtol=ROUNDING, atol=1e-4)
    read, kept, fresh, shown = wanted.chunk(4, 1)
    torch.testing.assert_close(after.double(), kept * before + read * fresh, rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(output.double(), shown * after.double().tanh(), rtol=ROUNDING, atol=1e-4)

    # Back from the gates as they were rounded, and from the cell state that was kept.
    leaves = gates.double().requires_grad_()
    cell = before.double().requires_grad_()
    read, kept, fresh, shown = leaves.chunk(4, 1)
    cell_after = kept * cell + read * fresh
    cell_after = cell_after + (after.double() - cell_after).detach()
    along = (to_output.double() + to_hidden.double(), to_cell.double())
    to_gates, to_cell_before = torch.autograd.grad((shown * cell_after.tanh(), cell_after), (leaves, cell), along)
    slopes = leaves * (1 - leaves)
    slopes[:, 2 * n_hid : 3 * n_hid] = 1 - fresh.square()
    torch.testing.assert_close(to_sums.double(), to_gates * slopes, rtol=ROUNDING, atol=1e-4)
    torch.testing.assert_close(to_before.double(), to_cell_before, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("laid_out", [True, False])
def test_a_product_is_that_of_linear_with_or_without_torchs_operators(
    monkeypatch: pytest.MonkeyPatch, laid_out: bool
) -> None:
    assert lstm_module._torch_lays_out() or not onednn_has_bf16()
    if not laid_out:
        monkeypatch.setattr(lstm_module, "_torch_lays_out", lambda: False)
    torch.manual_seed(6)
    weight, rows = torch.randn(52, 13).bfloat16(), torch.randn(5, 13).bfloat16()
    found = lstm_module._product_with(weight, len(rows))(rows)
    torch.testing.assert_close(found, nn.functional.linear(rows, weight), rtol=2**-7, atol=1e-2)
    if not laid_out:
        assert torch.equal(found, nn.functional.linear(rows, weight))


def test_what_is_no_number_stays_so() -> None:
    """Divergence has to be seen."""
    layer, rows, before, _ = case(12, 8)
    rows[1, 3, 2] = float("nan")
    state = (before[0][0].bfloat16(), before[1][0])
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).bfloat16()
    weights = layer.weight_ih_l0.bfloat16(), layer.weight_hh_l0.bfloat16(), bias
    outputs, *_ = lstm_module._Recurrence.apply(rows.bfloat16(), *state, *weights)
    assert outputs[1, 3:].isnan().all()
    assert outputs[1, :3].isfinite().all()
    assert outputs[[0, 2, 3, 4]].isfinite().all()


@pytest.mark.skipif(not onednn_has_bf16(), reason="oneDNN has no bfloat16 on this CPU, and training does without it")
def test_it_gives_the_same_bits_again() -> None:
    """What exact resume rests on; at a size that a training has."""
    parts = case(400, 768)
    device = Device(torch.device("cpu"), "bf16", "bf16")
    with device.kernels(), device.autocast():
        first, *others = (gradients(*parts) for _ in range(3))
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@pytest.mark.usefixtures("torch_errs")
def test_a_graph_can_be_followed_twice_and_frozen_weights_have_no_gradient() -> None:
    """Adversarial training asks for a gradient before the others."""
    layer, rows, before, _ = case(12, 8)
    layer.weight_ih_l0.requires_grad_(False)
    rows.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = layer(rows, before)
    loss = outputs.float().square().sum()
    (first,) = torch.autograd.grad(loss, rows, retain_graph=True)
    loss.backward()
    assert rows.grad is not None
    assert torch.equal(first, rows.grad)
    assert layer.weight_ih_l0.grad is None
    assert layer.weight_hh_l0.grad is not None


@pytest.mark.usefixtures("torch_errs")
def test_a_frozen_layer_reads_by_torch_which_does_so_sooner() -> None:
    layer, rows, before, _ = case(12, 8)
    layer.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        found, by_torch = layer(rows, before)[0], nn.LSTM.forward(layer, rows, before)[0]
        followed = layer(rows.requires_grad_(), before)[0]
    assert torch.equal(found, by_torch)
    assert found.grad_fn is None
    assert "_Recurrence" in repr(followed.grad_fn)


@pytest.mark.skipif(not onednn_has_bf16(), reason="oneDNN has no bfloat16 on this CPU, and training does without it")
def test_trying_torch_out_takes_no_random_number_of_the_training() -> None:
    lstm_module.torch_learns.cache_clear()
    state = torch.get_rng_state()
    assert lstm_module.torch_learns(12, 8)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("torch_errs")
def test_a_whole_language_model_has_the_gradients_of_fp32() -> None:
    torch.manual_seed(2)
    model = build_language_model(Architecture(60, 16, 40, 3)).train()
    words = torch.randint(2, 60, (4, 17))

    def found() -> list[Tensor]:
        model.reset()
        loss = model(words)[0].float().square().mean()
        return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))

    right = found()
    with torch.autocast("cpu", torch.bfloat16):
        in_bf16 = found()
    assert max(relative_errors(in_bf16, right)) < 0.1
