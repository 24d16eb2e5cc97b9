"""A child of a warm process behaves like a process of its own: exit codes, groups, output, environment, ending."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.warm import Warm

JOB = '''
import atexit, json, os, pathlib, random, subprocess, sys, threading, time
print("imported")
seen = []

def main(argv):
    seen.append(argv)
    if argv[0] == "tell":
        atexit.register(print, "goodbye")
        print(argv, sys.argv[1:], os.getcwd(), os.environ.get("COLOUR"), len(seen), sys.stdin.read())
        print("to the error stream", file=sys.stderr)
        pathlib.Path("random").write_text(str(random.random()))
    elif argv[0] == "exit":
        sys.exit(json.loads(argv[1]))
    elif argv[0] == "thread":
        threading.Thread(target=lambda: [time.sleep(0.1), print("joined")]).start()
    elif argv[0] == "raise":
        raise ValueError("no such thing")
    elif argv[0] == "sleep":
        worker = subprocess.Popen(["sleep", "60"])
        print(worker.pid, flush=True)
        time.sleep(60)
'''


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    folder = tmp_path_factory.mktemp("job")
    (folder / "some_job.py").write_text(JOB, encoding="utf-8")
    with Warm("some_job:main", preload=["json"], env={"PYTHONPATH": str(folder)}) as warm:
        yield warm


def await_(condition, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped by its parent does not."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_child_gets_its_own_arguments_folder_environment_and_log(warm: Warm, tmp_path: Path) -> None:
    randoms = set()
    for colour in ("green", "red"):
        folder = tmp_path / colour
        folder.mkdir()
        child = warm.start(["tell", colour], folder, folder / "log", {"COLOUR": colour})
        assert child.wait(10) == 0
        argv = ["tell", colour]
        assert sorted(child.output().splitlines()) == sorted(
            [f"{argv} {argv} {folder} {colour} 1 ", "to the error stream", "goodbye"]
        )
        randoms.add((folder / "random").read_text())
    assert len(randoms) == 2
    assert "COLOUR" not in os.environ


@pytest.mark.parametrize(
    ("argv", "exit_code", "last_line"),
    [
        (["exit", "75"], 75, ""),
        (["exit", "null"], 0, ""),
        (["exit", '"some reason"'], 1, "some reason"),
        (["raise"], 1, "ValueError: no such thing"),
        (["thread"], 0, "joined"),
    ],
)
def test_a_child_ends_as_a_process_does(
    warm: Warm, tmp_path: Path, argv: list[str], exit_code: int, last_line: str
) -> None:
    child = warm.start(argv, tmp_path, tmp_path / "log")
    assert child.wait(10) == exit_code
    assert (child.output().splitlines() or [""])[-1] == last_line


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_ends_the_workers_too(warm: Warm, tmp_path: Path, sig: signal.Signals) -> None:
    child = warm.start(["sleep"], tmp_path, tmp_path / "log")
    await_(lambda: child.output().endswith("\n"))
    worker = int(child.output())
    with pytest.raises(TimeoutError, match=rf"process {child.pid} still runs after 0.01 s"):
        child.wait(0.01)
    assert os.getpgid(worker) == child.pid
    child.kill(sig)
    assert child.wait(10) == -sig
    assert alive(worker)
    child.kill_group(sig)
    await_(lambda: not alive(worker))
    child.kill()  # of no effect on one that has ended


def test_closing_ends_children_and_workers(tmp_path: Path) -> None:
    (tmp_path / "some_job.py").write_text(JOB, encoding="utf-8")
    with Warm("some_job:main", env={"PYTHONPATH": str(tmp_path)}) as warm:
        child = warm.start(["sleep"], tmp_path, tmp_path / "log")
        await_(lambda: child.output().endswith("\n"))
        worker = int(child.output())
    await_(lambda: not alive(worker) and not alive(child.pid))


def test_an_import_that_fails_is_told() -> None:
    with pytest.raises(RuntimeError, match="No module named 'no_such_job'"):
        Warm("no_such_job:main")


def test_threads_at_import_are_refused(tmp_path: Path) -> None:
    job = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    (tmp_path / "threaded_job.py").write_text(job + "def main(argv): pass\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="importing threaded_job:main started threads"):
        Warm("threaded_job:main", env={"PYTHONPATH": str(tmp_path)})
