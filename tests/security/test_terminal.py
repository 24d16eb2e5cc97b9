"""T13: no name, label or text out of a source acts on the terminal of whoever runs the commands."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

ROOT = Path(__file__).parents[2]
EVIL = "\x1b[2J\x1b]0;owned\x07\u202e\x9b"
"""Clears the screen, sets the title of the window, turns the reading direction."""


def said(home: Path, *arguments: str | Path, code: int, in_own_process: bool = False) -> str:
    """Everything a command prints, which must be free of control characters."""
    words = [*map(str, arguments), "--home", str(home)]
    if in_own_process:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *words], cwd=ROOT, capture_output=True, check=False, timeout=120,
            env={**os.environ, "PYTHONUTF8": "1"},
        )
        text, found = (done.stdout + done.stderr).decode("utf-8", "surrogateescape"), done.returncode
    else:
        result = CliRunner().invoke(app, words)
        text, found = result.output, result.exit_code
    assert found == code, text
    unsafe = {c for c in text if not c.isprintable() and c != "\n"}
    assert not unsafe, ascii(text)
    return text


def prepare(home: Path, kind: str, source: Path, *more: str, code: int, in_own_process: bool = False) -> str:
    sets = [part for setting in (f"kind={kind}", *more) for part in ("--set", f"prepare_corpus.{setting}")]
    return said(home, "prepare_corpus", "--source", source, *sets, code=code, in_own_process=in_own_process)


def table(path: Path, **change: str) -> Path:
    rows = [
        {"text": f"film {i} {EVIL}", "label": ("good", "bad")[i % 2], "split": "train", "id": f"d{i}"}
        for i in range(20)
    ]
    rows[3] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_labels_and_ids_in_the_log(tmp_path: Path) -> None:
    source = table(tmp_path / "t.jsonl", label=f"good{EVIL}", id=f"{EVIL}id")
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows += [{"text": f"more {i}", "label": f"good{EVIL}", "split": "train", "id": f"m{i}"} for i in range(9)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = prepare(tmp_path, "table", source, "id_column=id", code=0, in_own_process=True)
    assert "good\ufffd[2J\ufffd]0;owned\ufffd\ufffd\ufffd" in text
    assert "control_characters 20" in text
    labels = json.loads(next(tmp_path.rglob("corpus/labels.json")).read_text(encoding="utf-8"))
    assert [label for label in labels if label.isprintable()] == labels


@pytest.mark.parametrize(("change", "more", "code"), [
    ({"split": f"tr{EVIL}"}, "split_column=split", 4), ({"id": f"d1{EVIL}"}, "id_column=nothing", 4),
])
def test_cells_in_error_messages(tmp_path: Path, change: dict[str, str], more: str, code: int) -> None:
    assert "error: " in prepare(tmp_path, "table", table(tmp_path / "t.jsonl", **change), more, code=code)


def test_columns_in_error_messages(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{EVIL},label\nx,y\n", encoding="utf-8")
    assert r"\x1b[2J" in prepare(tmp_path, "table", tmp_path / "t.csv", code=4)


def test_file_and_folder_names_in_error_messages(tmp_path: Path) -> None:
    for number, path in enumerate((f"{EVIL}/good/1.txt", f"train/{EVIL}/deep/1.txt")):
        file = tmp_path / f"f{number}" / path
        file.parent.mkdir(parents=True)
        file.write_text("x")
        assert r"\x1b[2J" in prepare(tmp_path, "folder", tmp_path / f"f{number}", code=4)
    link = tmp_path / f"f2/train/good/{EVIL}.txt"
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/passwd")
    assert r"\x1b[2J" in prepare(tmp_path, "folder", tmp_path / "f2", code=3)


def test_member_names_in_error_messages(tmp_path: Path) -> None:
    members = ((f"../{EVIL}", tarfile.REGTYPE), (f"train/pos/{EVIL}.txt", tarfile.SYMTYPE))
    for number, (name, kind) in enumerate(members):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            member = tarfile.TarInfo(name)
            member.type = kind
            archive.addfile(member)
        assert r"\x1b[2J" in prepare(tmp_path, "imdb", tmp_path / f"{number}.tar", code=3)


def test_the_name_of_the_source_itself(tmp_path: Path) -> None:
    """Shells complete a name that someone else chose."""
    path = tmp_path / f"{EVIL}.csv"
    assert r"\x1b[2J" in prepare(tmp_path, "table", path, code=3)
    path.write_text("text,label\n", encoding="utf-8")
    assert r"\x1b[2J" in prepare(tmp_path, "table", path, code=4)


def test_a_source_whose_name_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    table(path)
    assert "is not UTF-8. Rename" in prepare(tmp_path, "table", path, code=2, in_own_process=True)


def test_file_names_in_a_folder_that_are_not_utf8(tmp_path: Path) -> None:
    for number in range(10):
        for label in ("good", "bad"):
            file = tmp_path / "f/train" / label / os.fsdecode(b"caf\xe9 %d.txt" % number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{label} film {number}")
    assert "train: 18 documents" in prepare(tmp_path, "folder", tmp_path / "f", "test_fraction=0", code=0)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_the_encoding_of_the_output_lacks_is_escaped(tmp_path: Path, encoding: str) -> None:
    home = tmp_path / "é 好 \U0001f600"
    home.mkdir()

    def output_of(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments, "--recipe", "human-numbers", "--home", str(home)], cwd=ROOT,
            capture_output=True, check=False, timeout=120, env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert done.returncode == 0, done.stderr.decode(encoding)
        return done.stdout.decode(encoding)

    assert str(home) in json.loads(output_of("status", "--json"))["stages"][0]["next"]
    assert r"\u597d" in output_of("status")
    assert r"\u597d" in output_of("run", "--dry-run")
