"""Death inside a save: a job dies at a given byte of a given file that torch or safetensors is writing.

Both libraries write in C++ or Rust, past anything Python could interrupt. So the kernel does it: a limit on the size of
files (RLIMIT_FSIZE) is set when the chosen save begins, and the write that would pass it ends the process by SIGXFSZ
before any more code of it runs. What is on the disk is what `kill -9` at that byte leaves. A save that is shorter than
the limit ends normally, and the process gets a plain `kill -9` right after it, before the next file of the checkpoint.

safetensors >= 0.8 sets the full size of a temporary file first and renames it at the end: its limit strikes at once,
and the name it writes for stays untouched, as with any kill before the rename.

Environment: FAULT_KILL_IN_SAVE=<number of the save, from 1>:<byte>; FAULT_SAVE_SIZES=<file that gets the size of every
save, one a line>.
"""

import functools
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

KILL_VARIABLE = "FAULT_KILL_IN_SAVE"
SIZES_VARIABLE = "FAULT_SAVE_SIZES"


class Saves:
    """Counts the saves of a process and ends it in the chosen one."""

    def __init__(self, victim: int, byte: int, sizes: Path | None) -> None:
        self.number = 0
        self.victim = victim
        self.byte = byte
        self.sizes = sizes

    def watch(self, save: Callable[..., Any], path_position: int) -> Callable[..., Any]:
        """`save` with this count around it; the path it writes to stands at `path_position`."""

        @functools.wraps(save)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.number += 1
            if self.number == self.victim:
                limit_file_size(self.byte)
            result = save(*args, **kwargs)
            if self.number == self.victim:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.sizes is not None:
                with self.sizes.open("a", encoding="utf-8") as stream:
                    stream.write(f"{os.path.getsize(args[path_position])}\n")
            return result

        return watched


def limit_file_size(n_bytes: int) -> None:
    """Make the kernel end this process, without a core dump, when it writes past `n_bytes` of any file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def arm() -> None:
    """Watch torch.save and safetensors in this process if the environment asks for it."""
    victim, _, byte = os.environ.get(KILL_VARIABLE, "0:0").partition(":")
    sizes = os.environ.get(SIZES_VARIABLE)
    if int(victim) == 0 and sizes is None:
        return
    saves = Saves(int(victim), int(byte), Path(sizes) if sizes else None)
    # `save_file` may have been imported by name elsewhere; the function that it calls has not.
    for module, name in ((torch, "save"), (safetensors.torch, "serialize_file")):
        setattr(module, name, saves.watch(getattr(module, name), path_position=1))
