"""The lock of an artifact: one holder, named to the others, gone with its process."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ExitCode, InputError, LockedError
from pipeline.lock import locked
from pipeline.provenance import this_process


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "run" / "corpus"


HOLDER = """
import sys, time
from pathlib import Path
from pipeline.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_ends_with_it(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "SLURM_JOB_ID": "4711"}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(target)], stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        host = this_process()["host"]
        message = f"corpus is being written by process {holder.pid} on host {host}, job 4711. Wait for it, or choose"
        with pytest.raises(LockedError, match=re.escape(message)) as caught, locked(target):
            pytest.fail("two holders")
        assert caught.value.exit_code == ExitCode.LOCKED
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(target):
        assert json.loads(target.with_name(".corpus.owner.json").read_text())["pid"] == os.getpid()
    assert not target.with_name(".corpus.owner.json").exists()


def test_without_locks_of_the_kernel_a_holder_that_is_gone_is_named_with_the_file_to_remove(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_flock(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with locked(target), pytest.raises(LockedError, match="is being written"), locked(target):
        pytest.fail("two holders")
    lock = target.with_name(".corpus.lock")
    lock.write_text(f"{os.getpid()}\nnode-a\n", encoding="utf-8")  # as it lies there after a job was killed elsewhere
    target.with_name(".corpus.owner.json").write_text('{"pid": 12, "host": "node-a", "job_id": "4711"}')
    with pytest.raises(LockedError) as caught, locked(target):
        pytest.fail("two holders")
    assert str(caught.value) == (
        f"{target} is being written by process 12 on host node-a, job 4711. Wait for it, or choose another --run. This "
        f"disk has no locks that end with their process: if it is surely gone, rm {lock}"
    )
    lock.unlink()
    with locked(target):
        assert lock.exists()


def test_an_error_frees_the_lock_and_its_owner_file(target: Path) -> None:
    with pytest.raises(InputError, match="inside"), locked(target):
        raise InputError("inside")
    assert not target.with_name(".corpus.owner.json").exists()
    with locked(target):
        assert target.parent.is_dir()
