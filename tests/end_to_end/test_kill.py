"""kill -9 at any moment: no half artifact, and the same command goes on to the same weights."""

import json
import random
import signal
import time
from pathlib import Path

from command_line import call, call_process, manifest

STAGES = {
    "prepare_corpus": "data/smoke/corpus", "tokenize_corpus": "data/smoke/tokens",
    "numericalize_corpus": "data/smoke/ids", "finetune_lm": "models/smoke/lm-fwd",
    "train_classifier": "models/smoke/classifier-fwd", "evaluate_classifier": "models/smoke/evaluation",
}


def kill_inside(stage: str, arguments: list[str], home: Path, delay_s: float) -> bool:
    """Start the run, wait until `stage` starts, then kill -9; False if the run was done before."""
    process = call_process("run", *arguments, "--home", str(home))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith((f"{stage}: starting", f"{stage}: going on")):
            time.sleep(delay_s)
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return process.returncode == -signal.SIGKILL


def test_killed_in_every_stage_it_ends_like_an_unbroken_run(
    finished: Path, arguments: list[str], tmp_path: Path
) -> None:
    rng = random.Random(7)
    for stage, folder in STAGES.items():
        # A share of the time it took unbroken: a delay in seconds is past the stage where the machine is fast.
        share = rng.uniform(0.3, 0.6) if stage in ("finetune_lm", "train_classifier") else rng.uniform(0.0, 0.3)
        assert kill_inside(stage, arguments, tmp_path, share * manifest(finished / folder)["wall_s"]), stage
        path = tmp_path / folder
        state = {
            s["stage"]: s["state"]
            for s in json.loads(call("status", "--run", "smoke", "--home", str(tmp_path), "--json").stdout)["stages"]
        }
        assert path.exists() == (state[stage] == "sealed")
    call("run", *arguments, "--home", str(tmp_path))
    for folder in STAGES.values():
        unbroken, killed = manifest(finished / folder), manifest(tmp_path / folder)
        assert killed["fingerprint"] == unbroken["fingerprint"]
        timed = {"history.csv", "history.jsonl"}
        same = {name: record for name, record in unbroken["files"].items() if name not in timed}
        assert {name: killed["files"][name] for name in same} == same
    leftovers = [p for p in tmp_path.rglob(".*") if p.name.endswith((".partial", ".replaced", ".owner.json"))]
    assert leftovers == []


def test_a_second_run_on_the_same_folder_is_refused(arguments: list[str], tmp_path: Path) -> None:
    process = call_process("run", *arguments, "--home", str(tmp_path))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("finetune_lm: starting"):
            break
    second = call_process("finetune_lm", *arguments, "--home", str(tmp_path))
    output, _ = second.communicate()
    assert second.returncode == 8
    assert f"lm-fwd is being written by process {process.pid} on host" in output
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_log_of_a_batch_job_is_plain_lines(arguments: list[str], tmp_path: Path) -> None:
    process = call_process("run", *arguments, "--home", str(tmp_path))
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "\r" not in output
    assert "\x1b" not in output
    assert "Warning" not in output
    training = [line for line in output.splitlines() if line.startswith("finetune_lm")]
    assert training[1] == "finetune_lm: device cpu, precision fp32"
