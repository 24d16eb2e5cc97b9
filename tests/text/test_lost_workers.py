"""A worker process of tokenize_corpus that is lost: the error says whether it was killed or ended by itself."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workshop import Workshop

from pipeline.errors import ExitCode, OutOfMemoryError
from pipeline.text.char import CharTokenizer
from pipeline.text.shards import make_shards
from pipeline.text.tokenizer import save_tokenizer

ROWS = [("train", "good", f"Film number {i}, and a good one.") for i in range(100)]
WITHOUT_GUARD = """\
from pipeline.cli import main

main("tokenize_corpus")
"""


def what_it_waits_in(pid: int | None) -> str:
    return Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")


@pytest.mark.skipif(not Path("/proc/self/wchan").exists(), reason="only Linux tells what a process waits in")
def test_an_idle_worker_that_is_killed_lacked_memory(tmp_path: Path) -> None:
    """The one that reads the queue holds the lock that the other one then waits for."""
    workshop = Workshop(tmp_path)
    workshop.corpus(ROWS, row_group_size=5)
    tokenizer, shards = CharTokenizer("fastai"), tmp_path / "shards"
    shards.mkdir()
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    documents = tmp_path / "data" / "r" / "corpus" / "documents.parquet"
    made = make_shards(documents, tokenizer, tmp_path / "tokenizer", shards, row_groups=range(20), workers=2)
    next(made)  # and nothing is asked for after that: both workers soon wait
    for _ in range(600):
        readers = [worker for worker in multiprocessing.active_children() if "pipe" in what_it_waits_in(worker.pid)]
        if len(list(shards.iterdir())) >= 5 and readers:
            break
        time.sleep(0.1)
    readers[0].kill()
    with pytest.raises(OutOfMemoryError, match="was killed, most likely for lack of memory"):
        list(made)
    assert not multiprocessing.active_children()


def test_workers_of_a_script_without_its_guard(tmp_path: Path) -> None:
    """Each imports the script, which then wants to tokenize too."""
    Workshop(tmp_path).corpus(ROWS, row_group_size=10)
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_GUARD, encoding="utf-8")
    result = subprocess.run(
        [
            sys.executable, str(script), "--recipe", "sample-word", "--run", "r", "--set",
            "inputs.corpus=data/r/corpus", "--set", "tokenize_corpus.workers=2",
        ],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True,
        check=False,
    )
    said = " ".join(result.stderr.split())
    assert result.returncode == ExitCode.USAGE
    assert "under if __name__ == '__main__':" in said
    assert "memory" not in said
