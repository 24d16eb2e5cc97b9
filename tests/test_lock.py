"""The lock of an artifact: one holder, named to the others, gone with its process."""

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


def test_an_error_frees_the_lock_and_its_owner_file(target: Path) -> None:
    with pytest.raises(InputError, match="inside"), locked(target):
        raise InputError("inside")
    assert not target.with_name(".corpus.owner.json").exists()
    with locked(target):
        assert target.parent.is_dir()
