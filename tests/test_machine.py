"""What the machine refuses: which errors are its own, with which exit code, and which are defects."""

import errno
import os
import socket
import ssl

import pytest

from pipeline.errors import ExitCode
from pipeline.machine import limit_behind


@pytest.mark.parametrize(("name", "mend"), [
    ("ENOSPC", "Free some space or mend the permissions"), ("EDQUOT", "Free some space"), ("EACCES", "Free some space"),
    ("ESTALE", "See that the file system answers"), ("ETIMEDOUT", "See that"), ("ENOLCK", "See that"),
    ("EBUSY", "See that"), ("ENOTEMPTY", "Correct the path, or move what is in the way"), ("ENOTDIR", "Correct"),
    ("EEXIST", "Correct"), ("ENAMETOOLONG", "Correct"), ("EISDIR", "Correct"), ("EINVAL", "See that"),
])
def test_whatever_the_system_says_of_a_file_is_a_storage_error(name: str, mend: str) -> None:
    number = getattr(errno, name)
    told = limit_behind(OSError(number, os.strerror(number), "some/file"), "status")
    assert told is not None
    assert told.exit_code is ExitCode.STORAGE
    assert told.what == f"status could not read or write (some/file): {os.strerror(number)}."
    assert told.mend.startswith(mend)


def test_a_write_that_fails_names_no_file() -> None:
    told = limit_behind(OSError(errno.ESTALE, os.strerror(errno.ESTALE)), "tokenize_corpus")
    assert str(told).startswith("tokenize_corpus could not read or write: Stale file handle. See that")


def test_memory_that_runs_out_keeps_its_code() -> None:
    told = limit_behind(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "some/file"), "status")
    assert told is not None
    assert told.exit_code is ExitCode.OUT_OF_MEMORY


@pytest.mark.parametrize("error", [
    BrokenPipeError(errno.EPIPE, "Broken pipe"),  # the reader of our output has seen enough
    FileNotFoundError(errno.ENOENT, "No such file or directory", "a/file/of/ours"),
    OSError(errno.EBADF, "Bad file descriptor"),
    OSError(errno.EADDRINUSE, "Address already in use"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    socket.gaierror(-2, "Name or service not known"),
    ssl.SSLError(1, "wrong version number"),  # 1 is EPERM elsewhere
    OSError("a library's own"), ValueError("a defect"),
], ids=repr)
def test_defects_and_networks_are_no_matter_of_a_disk(error: Exception) -> None:
    assert limit_behind(error, "status") is None
