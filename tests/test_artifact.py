"""Sealed folders: complete or absent, refused when touched, recovered after a kill at any moment."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline import artifact as artifacts
from pipeline.artifact import Manifest
from pipeline.attempt import Attempt, open_partial, unfinished
from pipeline.errors import ExitCode, InputError
from pipeline.provenance import now

FINGERPRINT = "f" * 64


def manifest(**changes: object) -> Manifest:
    values = {
        "slot": "corpus", "stage": "prepare_corpus", "code_version": 1, "fingerprint": FINGERPRINT,
        "settings": {"prepare_corpus": {"kind": "human-numbers"}}, "inputs": {}, "source": None, "identity": {},
        "files": {}, "versions": {"python": "3"}, "git_commit": None, "git_dirty": None, "host": "here", "job_id": None,
        "device": None, "precision": None, "created": now(), "wall_s": 0.5, "peak_memory_mb": 1.0,
        "metrics": {"documents": 2, "loss": math.inf, "share": 0.1},
    }
    return Manifest.model_validate(values | changes)


def make(target: Path, text: str = "one") -> artifacts.Artifact:
    partial, _ = open_partial(target, FINGERPRINT)
    (partial / "deep" / "er").mkdir(parents=True, exist_ok=True)
    (partial / "text.txt").write_text(text, encoding="utf-8")
    (partial / "deep" / "er" / "bytes.bin").write_bytes(bytes(range(16)))
    (partial / "empty").write_bytes(b"")
    return artifacts.seal(target, manifest())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "run" / "corpus"


def test_sealing_leaves_the_artifact_and_nothing_else(target: Path) -> None:
    sealed = make(target)
    assert names(target.parent) == {"corpus"}
    assert names(target) == {"deep", "text.txt", "empty", "manifest.json"}
    assert set(sealed.manifest.files) == {"deep/er/bytes.bin", "text.txt", "empty"}
    opened = artifacts.open_artifact(target, "corpus")
    assert opened.manifest.fingerprint == FINGERPRINT
    assert opened.manifest.seal == sealed.manifest.seal
    assert opened.file("text.txt").read_text(encoding="utf-8") == "one"


def test_metrics_that_are_no_numbers_do_not_break_the_seal(target: Path) -> None:
    make(target)
    opened = artifacts.read_manifest(target)
    assert opened is not None
    assert opened.metrics == {"documents": 2, "loss": None, "share": 0.1}


def test_a_file_that_is_not_listed_is_not_handed_out(target: Path) -> None:
    with pytest.raises(InputError, match=r"holds no labels\.json\. Name an artifact of the right kind\."):
        make(target).file("labels.json")


def test_any_changed_byte_of_any_file_is_refused_by_name(target: Path) -> None:
    sealed = make(target)
    for name, record in sealed.manifest.files.items():
        path = target / name
        content = path.read_bytes()
        for position in range(record.size_bytes):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            with pytest.raises(InputError, match=rf"{re.escape(str(path))} was changed after sealing: SHA-256"):
                artifacts.open_artifact(target, "corpus")
        path.write_bytes(content)
    artifacts.open_artifact(target, "corpus")


@pytest.mark.parametrize("name", ["text.txt", "deep/er/bytes.bin", "empty"])
def test_longer_and_missing_files_are_refused_by_name(target: Path, name: str) -> None:
    make(target)
    path = target / name
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} has {len(content) + 1} bytes"):
        artifacts.open_artifact(target, "corpus")
    path.unlink()
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} is missing, its manifest lists it\."):
        artifacts.open_artifact(target, "corpus")


def test_any_changed_byte_of_the_manifest_is_refused(target: Path) -> None:
    make(target)
    path = target / "manifest.json"
    content = path.read_bytes()
    for position in range(len(content) - 1):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(InputError, match=r"manifest\.json (is damaged|was changed after sealing)") as caught:
            artifacts.read_manifest(target)
        assert caught.value.exit_code == ExitCode.INPUT
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        artifacts.read_manifest(target)


def test_a_manifest_edited_by_hand_is_refused(target: Path) -> None:
    make(target)
    path = target / "manifest.json"
    edited = json.loads(path.read_text(encoding="utf-8"))
    edited["metrics"]["share"] = 0.9
    path.write_text(json.dumps(edited, indent=2), encoding="utf-8")
    with pytest.raises(InputError, match=r"changed after sealing .*Restore it from a copy, or have prepare_corpus"):
        artifacts.read_manifest(target)


def test_hardware_is_sealed_and_artifacts_from_before_it_was_recorded_stay_intact() -> None:
    earlier = manifest().sealed().model_dump(mode="json", exclude={"hardware"})
    assert artifacts.Manifest.model_validate(earlier).is_intact()
    now = manifest(hardware="a GPU").sealed()
    assert now.is_intact()
    for edited in ("another GPU", None):
        assert not now.model_copy(update={"hardware": edited}).is_intact()


def test_an_artifact_from_before_hardware_was_recorded_is_written_as_it_was(target: Path) -> None:
    earlier = manifest().sealed()
    assert "hardware" not in json.loads(earlier.as_written())
    assert json.loads(manifest(hardware="a GPU").as_written())["hardware"] == "a GPU"


def test_a_manifest_of_a_newer_version_is_called_so(target: Path) -> None:
    make(target)
    path = target / "manifest.json"
    newer = {**json.loads(path.read_text(encoding="utf-8")), "format_version": 2, "license": "mit"}
    path.write_text(json.dumps(newer), encoding="utf-8")
    with pytest.raises(InputError, match=r"corpus was sealed by a newer version .*\(format 2, this one reads 1\)"):
        artifacts.read_manifest(target)


def test_all_files_have_the_usual_mode(target: Path) -> None:
    before = os.umask(0o027)
    try:
        partial, _ = open_partial(target, FINGERPRINT)
        save_file({"a": np.zeros(3)}, partial / "weights.safetensors")
        (partial / "text.txt").write_text("one")
        (partial / "text.txt").chmod(0o400)
        artifacts.seal(target, manifest())
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in target.iterdir()} == dict.fromkeys(
        ("weights.safetensors", "text.txt", "manifest.json"), 0o640
    )


def test_wrong_kinds_and_strange_folders_are_refused(target: Path, tmp_path: Path) -> None:
    make(target)
    with pytest.raises(InputError, match=r"holds corpus, not lm\. Name an artifact of the right kind\."):
        artifacts.open_artifact(target, "lm")
    with pytest.raises(InputError, match="There is no lm artifact at"):
        artifacts.open_artifact(tmp_path / "nothing", "lm")
    assert artifacts.read_manifest(tmp_path / "nothing") is None
    (tmp_path / "bare").mkdir()
    assert artifacts.read_manifest(tmp_path / "bare") is None
    (tmp_path / "bare" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match=r"bare is not a sealed artifact: it has no manifest\.json\. Name another"):
        artifacts.read_manifest(tmp_path / "bare")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is not a sealed artifact"):
        artifacts.read_manifest(tmp_path / "file")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_artifact
rename, killed_at, calls = os.rename, int(sys.argv[3]), 0
def rename_or_die(*args, **kwargs):
    global calls
    if calls == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
    calls += 1
    rename(*args, **kwargs)
os.rename = rename_or_die
sync = test_artifact.artifacts.sync
def sync_or_die(path):
    if calls == killed_at == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)
test_artifact.artifacts.sync = sync_or_die
test_artifact.make(Path(sys.argv[2]), "two")
"""


@pytest.mark.parametrize(
    ("killed_at", "found", "left"),
    [
        (0, "one", {"corpus", ".corpus.partial"}),  # before the old artifact is moved aside
        (1, "one", {".corpus.replaced", ".corpus.partial"}),  # between the two renames
        (2, "two", {"corpus", ".corpus.replaced"}),  # before the old artifact is removed
    ],
)
def test_a_kill_while_replacing_loses_nothing(target: Path, killed_at: int, found: str, left: set[str]) -> None:
    make(target, "one")
    here = str(Path(__file__).parent)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, here, str(target), str(killed_at)], check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert killed.returncode == -signal.SIGKILL
    assert names(target.parent) == left
    artifacts.recover(target)
    assert artifacts.open_artifact(target, "corpus").file("text.txt").read_text() == found
    assert "resume" not in names(target)
    make(target, "three")
    assert names(target.parent) == {"corpus"}
    assert artifacts.open_artifact(target, "corpus").file("text.txt").read_text() == "three"


def test_an_artifact_that_lies_elsewhere_is_replaced_where_its_link_is(target: Path, tmp_path: Path) -> None:
    make(target, "one")
    elsewhere = target.rename(tmp_path / "elsewhere")
    target.symlink_to(elsewhere)
    for text in ("two", "three"):
        make(target, text)
        assert artifacts.open_artifact(target, "corpus").file("text.txt").read_text() == text
    assert artifacts.open_artifact(elsewhere, "corpus").file("text.txt").read_text() == "one"
    assert names(target.parent) >= {"corpus"}
    assert ".corpus.replaced" not in names(target.parent)


def test_a_kill_while_the_old_artifact_is_removed_is_finished(target: Path) -> None:
    make(target, "one")
    target.rename(target.with_name(".corpus.replaced"))
    (target.with_name(".corpus.replaced") / "manifest.json").unlink()
    make(target, "two")
    (target / "resume").mkdir()
    (target / "resume" / "state").write_text("")
    artifacts.recover(target)
    assert names(target.parent) == {"corpus"}
    assert names(target) == {"deep", "text.txt", "empty", "manifest.json"}


def test_a_first_attempt_killed_before_its_rename_is_no_artifact(target: Path) -> None:
    partial, _ = open_partial(target, FINGERPRINT)
    (partial / "manifest.json").write_text("{}")
    artifacts.recover(target)
    assert artifacts.read_manifest(target) is None
    assert unfinished(target) == Attempt(fingerprint=FINGERPRINT)


def test_folder_hashes_see_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = artifacts.hash_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = artifacts.hash_folder(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, artifacts.hash_folder(tmp_path)}) == 3
