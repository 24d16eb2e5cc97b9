"""Reading members of a zip archive within limits; nothing is unpacked to disk."""

import errno
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path


def read_zip(path: Path, wanted: Callable[[str], str | None], limit_bytes: int) -> dict[str, bytes]:
    """The members of `path` that `wanted` has a name for, by that name; of several with one name, the last.

    A member of more than `limit_bytes` is cut there. Raises zipfile.BadZipFile, whatever is wrong with the archive.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            chosen = {name: info for info in archive.infolist() if (name := wanted(info.filename)) is not None}
            return {name: _read(archive, info, limit_bytes) for name, info in chosen.items()}
    except (EOFError, RuntimeError, ValueError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # the disk's own errors
            raise
        raise zipfile.BadZipFile(str(error)) from error


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit_bytes: int) -> bytes:
    """Stored or deflated, as archives mostly are: zipfile unpacks the other kinds without bound."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"its member has the compression type {info.compress_type}")
    with archive.open(info) as member:
        return member.read(limit_bytes)
