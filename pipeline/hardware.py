"""What the machine computes with: processor, cores, memory and GPU; no names of machines."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.machine import usable_cores

_UNITS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""Instruction sets that decide how fast matrices are multiplied, the best first."""


def describe_machine() -> dict[str, Any]:
    """Processor, the best of its units for matrices, cores, threads and memory in GB."""
    model, flags = platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            if name.strip() == "flags":
                flags = value
    except OSError:  # not Linux
        pass
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list: of nested levels
    return {
        "processor": model, "matrix_unit": next((unit for unit in _UNITS if unit in flags.split()), None),
        "cores": usable_cores(), "threads": int(threads) if threads.isdecimal() else usable_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def machine_in_words(described: Mapping[str, Any]) -> str:
    """`describe_machine`'s answer as it stands in a sentence."""
    unit = f" with {described['matrix_unit']}" if described["matrix_unit"] else ""
    return f"{described['processor']}{unit}, {described['cores']} cores"
