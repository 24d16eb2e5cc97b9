"""Writing so that a kill or a power cut at any moment leaves the old or the new, never a half."""

import errno
import os
import shutil
from pathlib import Path

from pipeline.errors import StorageError, UsageError

SPARE_BYTES = 64 * 2**20
"""Left free for everything else that writes to the same disk."""


def check_place_of_file(path: Path, option: str) -> None:
    """UsageError if a file cannot be at `path`, given with `option`: there is a folder, or none to hold it."""
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path} is in a folder that is not there.", f"Make it: mkdir -p {path.parent}")
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder.", "Choose another name.")


def place_of_folder(path: Path, option: str) -> Path:
    """`path`, given with `option`, by a name that can have siblings: `.` and `..` have none; UsageError for `/`."""
    place = path.resolve() if path.name in ("", "..") else path
    if not place.name:
        raise UsageError(f"{option} {path} is the root of all folders.", f"Name a folder in it: {option} FOLDER.")
    return place


def open_to_others(path: Path) -> None:
    """Give a file the mode of new files: safetensors makes some that only their owner may read."""
    mask = os.umask(0o077)  # which can only be read by setting one
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def sync(path: Path) -> None:
    """Flush a file or a folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, itself included."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def move_into_place(temporary: Path, final: Path) -> None:
    """Rename a finished file or folder to its name on the same disk, and make the rename last."""
    temporary.replace(final)
    sync(final.parent)


def write_durably(path: Path, content: str | bytes, writer: str = "tmp") -> None:
    """Write a small file: complete under its name, or not at all. Text becomes UTF-8.

    Where several processes may write it at once, each needs a name as `writer`.
    """
    temporary = path.with_name(f".{path.name}.{writer}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    sync(temporary)
    move_into_place(temporary, path)


def require_space(folder: Path, size_bytes: int) -> None:
    """StorageError if the disk of `folder` has no room for `size_bytes` more."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes + SPARE_BYTES:
        raise StorageError(
            f"A checkpoint of {size_bytes / 1e6:,.0f} MB does not fit on the disk of {folder}: "
            f"{free / 1e6:,.0f} MB are free, and {SPARE_BYTES / 1e6:,.0f} MB are left to others.",
            "Free some space, then give the same command again; the earlier checkpoints are kept.",
        )
