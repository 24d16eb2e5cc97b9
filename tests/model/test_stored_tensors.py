"""Weights in fewer bits: how far off they may be, and that the rest is exact."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import InputError
from pipeline.model.stored_tensors import SMALL, in_fewer_bits, read_tensors


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    large = torch.randn(300, 256) * torch.logspace(-6, 2, 300)[:, None]
    large[7] = 0
    return {"weight": large, "small": torch.randn(8, 8), "bias": torch.randn(SMALL + 1), "n": torch.tensor(3)}


def test_int8_is_off_by_half_a_step_at_most(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(in_fewer_bits(tensors, "int8"), tmp_path / "x")
    found = read_tensors(tmp_path / "x")
    assert found.keys() == tensors.keys()
    step = tensors["weight"].abs().amax(dim=1, keepdim=True) / 127
    assert ((found["weight"] - tensors["weight"]).abs() <= 0.5001 * step).all()
    assert (found["weight"][7] == 0).all()
    assert all(torch.equal(found[name], tensors[name]) for name in ("small", "bias", "n"))
    assert (tmp_path / "x").stat().st_size < 300 * 256 * 1.1 + 4 * (SMALL + 1) + 2_000
    again = in_fewer_bits(found, "int8")
    torch.testing.assert_close(again["weight"], in_fewer_bits(tensors, "int8")["weight"], rtol=0, atol=0)


def test_bf16_is_rounded_once(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(in_fewer_bits(tensors, "bf16"), tmp_path / "x")
    found = read_tensors(tmp_path / "x")
    assert torch.equal(found["weight"], tensors["weight"].bfloat16().float())
    assert torch.equal(found["bias"], tensors["bias"])


def test_a_file_that_is_none_and_a_scale_that_fits_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot be read"):
        read_tensors(tmp_path / "x")
    save_file({"w": torch.zeros(4, 4, dtype=torch.int8), "w.scale": torch.ones(3)}, tmp_path / "y")
    assert read_tensors(tmp_path / "y")["w"].dtype == torch.int8
