"""Which device and which arithmetic training really uses."""

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pipeline.errors import UsageError
from pipeline.ranks import ALONE, Ranks
from pipeline.settings import PredictionSettings, RunSettings

_INT8 = "int8+"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Device:
    """A device and the arithmetic asked of it."""

    device: torch.device
    requested: str
    precision: str
    """fp16, bf16 or fp32: what `requested` comes to on this device. int8+bf16 or int8+fp32: with the LSTM weights of a
    classifier rounded to 8 bits."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype matrix products run in."""
        return DTYPES[self.precision.removeprefix(_INT8)]

    @property
    def int8(self) -> bool:
        """True if LSTM weights are in 8 bits."""
        return self.precision.startswith(_INT8)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Autocast of this device; does nothing in fp32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.precision != "fp32")

    @contextlib.contextmanager
    def kernels(self) -> Iterator[None]:
        """Kernels that can run this precision: oneDNN on CPUs has no float16 LSTM, and without AVX-512 no bfloat16 one;
        torch's own kernels have, slowly."""
        before = torch.backends.mkldnn.enabled
        runs_without = self._emulates_bf16 or (self.device.type == "cpu" and self.precision == "fp16")
        torch.backends.mkldnn.enabled = bool(before) and not runs_without  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.backends.mkldnn.enabled = before

    def describe(self) -> str:
        """For the first line of a log."""
        asked = "" if self.requested == self.precision else f" (asked for: {self.requested})"
        slow = ", which this CPU only emulates: much slower than fp32" if self._emulates_bf16 else ""
        return f"device {self.device}, precision {self.precision}{asked}{slow}"

    @property
    def gpu(self) -> str | None:
        """What the GPU is called; None on a CPU."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None

    @property
    def _emulates_bf16(self) -> bool:
        return self.device.type == "cpu" and self.precision == "bf16" and not onednn_has_bf16()


def onednn_has_bf16() -> bool:
    """True if oneDNN computes in bfloat16 on this CPU: in hardware, or emulated with AVX-512."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def cpu_has_bf16() -> bool:
    """True if this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX; SVE BF16 on Arm)."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def resolve_device(run: RunSettings, ranks: Ranks = ALONE, *, by_options: bool = False) -> Device:
    """The device and precision of a run; UsageError if the request cannot be met here.

    Of several processes each gets a GPU of its own: that of its number on its machine, or the only one it can see.
    `by_options`: it was asked for with --device and --precision, which the error then names, and not with settings.
    """
    if isinstance(run, PredictionSettings) and run.precision == "int8":
        return _in_int8(resolve_device(run.model_copy(update={"precision": "auto"}), by_options=by_options))
    called, give = ("--", "Use --{} {}") if by_options else ("run.", "Use --set run.{}={}")
    name = run.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if ranks.size > 1 and device.type == "cuda":
        if device.index is not None:
            raise UsageError(f"run.device is {name}, for {ranks.size} processes.", "Use --set run.device=cuda.")
        device = torch.device("cuda", 0 if torch.cuda.device_count() == 1 else ranks.local)
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise UsageError(
            f"{called}device is {name}, but torch sees no such GPU here.", give.format("device", "cpu or auto.")
        )
    on_cuda = device.type == "cuda"
    precision = run.precision
    if precision == "auto":
        precision = "fp16" if on_cuda else "bf16" if cpu_has_bf16() else "fp32"
    if precision == "fp16" and not on_cuda and not run.allow_fp16_on_cpu:
        raise UsageError(
            f"{called}precision is fp16, which this CPU would only emulate slowly.",
            give.format("precision", "auto") + (
                "." if by_options else ", or --set run.allow_fp16_on_cpu=true to try the fp16 path without a GPU."
            ),
        )
    if precision == "bf16" and on_cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError(f"{called}precision is bf16, which {device} cannot run.", give.format("precision", "fp16."))
    if ranks.size > 1 and on_cuda:
        torch.cuda.set_device(device)
    return Device(device, run.precision, precision)


def _in_int8(device: Device) -> Device:
    if device.device.type != "cpu":
        raise UsageError("--precision is int8, which runs on CPUs only.", "Use --device cpu, or --precision auto.")
    return Device(device.device, "int8", _INT8 + device.precision)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of returning it to the kernel.

    Big tensors otherwise come back as fresh pages that the kernel must zero, which is up to half of a CPU training
    step. Does nothing where the C library is not glibc.
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 256 * 2**20)
