"""One folder, several exports: one at a time, whole, and with nothing left beside what was exported."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.errors import ExitCode, InputError, LockedError
from pipeline.export.placing import placed

ROOT = Path(__file__).parents[2]
EXPORT = """
import sys
from pathlib import Path
from pipeline.export.placing import placed
with placed(Path(sys.argv[1]), force=False, alone=True, last="README.md") as work:
    (work / "README.md").write_text("mine")
    (work / "model").write_text("mine")
    print("working", flush=True)
    sys.stdin.readline()
"""


def start(output: Path) -> subprocess.Popen[str]:
    """An export in a process of its own, which ends when its input does."""
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORT, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    assert process.stdout.readline() == "working\n"
    return process


def write(output: Path) -> None:
    with placed(output, force=False, alone=True) as work:
        (work / "model").write_text("mine", encoding="utf-8")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_second_export_is_told_who_has_the_folder(tmp_path: Path) -> None:
    output = tmp_path / "film"
    with start(output) as first:
        told = rf"film.* is being written by process {first.pid} on host .*Wait for it, or choose another --output\."
        with pytest.raises(LockedError, match=told) as caught:
            write(output)
        first.communicate("\n")
    assert caught.value.exit_code == ExitCode.LOCKED
    assert first.returncode == 0
    assert names(tmp_path) == ["film"]
    assert names(output) == ["README.md", "model"]


def test_exports_of_one_process_take_turns_too(tmp_path: Path) -> None:
    output, told = tmp_path / "film", []

    def second() -> None:
        try:
            write(output)
        except LockedError as error:
            told.append(str(error))

    with placed(output, force=False, alone=True) as work:
        other = threading.Thread(target=second)
        other.start()
        other.join()
        (work / "model").write_text("mine", encoding="utf-8")
    assert re.search(rf"being written by process {os.getpid()} ", *told)
    assert names(output) == ["model"]


def test_what_a_killed_export_left_is_cleared(tmp_path: Path) -> None:
    output = tmp_path / "film"
    with start(output) as killed:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert names(output) != []
    write(output)
    assert names(output) == ["model"]


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "film"
    with pytest.raises(InputError, match="inside"), placed(output, force=False):
        raise InputError("inside")
    assert names(tmp_path) == []
    output.mkdir()
    (output / "mine").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"film/mine is there already and no part of this export"):
        write(output)
    assert names(output) == ["mine"]


def test_all_files_have_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with placed(tmp_path / "film", force=False) as work:
            (work / "deep").mkdir()
            (work / "deep/model").touch(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "film/deep/model").stat().st_mode & 0o777 == 0o640
