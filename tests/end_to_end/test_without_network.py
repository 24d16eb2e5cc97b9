"""On a compute node: no network at all, and a home folder that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT

UNSHARE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


def possible() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not possible(), reason="a process without network cannot be started here (unshare --net)")
def test_a_whole_run_needs_neither_network_nor_home(arguments: list[str], tmp_path: Path) -> None:
    nowhere = {"HOME": "/proc/nowhere", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    command = [*UNSHARE, sys.executable, "-m", "pipeline"]
    done, unfetched = (
        subprocess.run([*command, *words], cwd=tmp_path, env=nowhere, capture_output=True, text=True, check=False)
        for words in (["run", *arguments, "--offline"], ["prepare_corpus", "--recipe", "imdb", "--offline"])
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "models/smoke/report/report.html").exists()
    assert "warn" not in (done.stdout + done.stderr).lower()
    assert unfetched.returncode == 3
    assert "data/downloads/aclImdb_v1.tar.gz is not there" in unfetched.stderr
    assert "give prepare_corpus with --download-only instead of --offline" in unfetched.stderr
