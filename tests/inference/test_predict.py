"""The predict command: inputs, outputs, order, stops, and what it refuses."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_classifiers import LABELS, WORDS, seal_classifier
from typer.testing import CliRunner

from pipeline import stopping
from pipeline.cli import app
from pipeline.errors import DataError, DivergedError, ExitCode, InputError, LockedError, Stopped, UsageError
from pipeline.inference import inputs
from pipeline.inference.bulk import Request
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.inference.inputs import InputText, blocks, digest, from_lines, from_pipe
from pipeline.inference.outputs import escaped
from pipeline.inference.predict import find_classifier, predict
from pipeline.lock import locked
from pipeline.progress import Reporter
from pipeline.settings import RunSettings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal_classifier(tmp_path_factory.mktemp("model") / "classifier")


@pytest.fixture(autouse=True)
def no_stop() -> Iterator[None]:
    yield
    stopping.forget()


def run(model: Path, lines: bytes = b"", **asked: Any) -> tuple[bytes, str]:
    """Standard output and the log of one command."""
    stdout, log = io.BytesIO(), io.StringIO()
    request = Request(str(model), **{"precision": "fp32", "device": "cpu", **asked})
    predict(request, Reporter(log), io.BytesIO(lines), stdout)
    return stdout.getvalue(), log.getvalue()


def reviews(n: int) -> list[str]:
    """Texts of 1 to 40 words in no order of length."""
    rng = np.random.default_rng(n)
    return [" ".join(rng.choice(WORDS[1:], rng.integers(1, 40))) for _ in range(n)]


def rows_of(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.decode().splitlines()]


def table(path: Path, texts: list[str], ids: list[str]) -> Path:
    """A table with columns id, text and one more, in the format of the suffix."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["id", "stars", "text"], *zip(ids, "*" * len(ids), texts, strict=True)])
    elif path.suffix == ".jsonl":
        lines = (json.dumps({"id": name, "stars": 1, "text": text}) for name, text in zip(ids, texts, strict=True))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"id": ids, "text": texts}), path)
    else:
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def test_arguments_and_lines(model: Path) -> None:
    texts = ["A warm, witty film!", "the dull story", ""]
    by_arguments, log = run(model, texts=tuple(texts))
    by_lines, _ = run(model, "\r\n".join(texts).encode() + b"\r\n")
    assert by_arguments == by_lines
    expected = load_classifier_bundle(model, RunSettings(precision="fp32", device="cpu")).predict(texts)
    for number, (row, probabilities) in enumerate(zip(rows_of(by_arguments), expected, strict=True)):
        assert list(row) == ["id", "label", "probabilities"]
        assert row["id"] == str(number)
        assert [row["probabilities"][label] for label in LABELS] == pytest.approx(probabilities, rel=1e-6)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].__getitem__)
    assert "predict: 3 texts in" in log
    assert "cleaned: empty 1 (empty and blank texts get the prior of an empty document)" in log


def test_8_bits_are_told_and_close(model: Path) -> None:
    texts = tuple(reviews(5))
    output, log = run(model, texts=texts, precision="int8")
    assert re.search(r"device cpu, precision int8\+(bf16|fp32) \(asked for: int8\)", log)
    found = np.array([[row["probabilities"][label] for label in LABELS] for row in rows_of(output)])
    expected = load_classifier_bundle(model, RunSettings(precision="fp32", device="cpu")).predict(texts)
    assert found == pytest.approx(expected, abs=0.02)
    alone, _ = run(model, texts=texts[:1], precision="int8")
    assert list(rows_of(alone)[0]["probabilities"].values()) == pytest.approx(expected[0], abs=0.02)


@pytest.mark.parametrize("source", [".txt", ".csv", ".jsonl", ".parquet"])
def test_files_in_keep_order_and_ids(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(inputs, "BLOCK_DOCUMENTS", 7)
    texts = reviews(30)
    ids = [str(number) if source == ".txt" else f"né-{number * 7 % 30}" for number in range(30)]
    output, _ = run(model, input=table(tmp_path / f"in{source}", texts, ids))
    found = rows_of(output)
    assert [row["id"] for row in found] == ids
    expected = load_classifier_bundle(model, RunSettings(precision="fp32", device="cpu")).predict(texts)
    values = np.array([[row["probabilities"][label] for label in LABELS] for row in found])
    assert values == pytest.approx(expected, abs=1e-6)


def test_formats_out_say_the_same(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BLOCK_DOCUMENTS", 4)
    ids = ["=1+1", "+2", "-3", "@sum", "plain", "a,b", 'q"q', "8", "9", "10"]
    source = table(tmp_path / "in.jsonl", reviews(10), ids)
    for suffix in (".jsonl", ".csv", ".parquet"):
        run(model, input=source, output=tmp_path / f"out{suffix}")
    lines = rows_of((tmp_path / "out.jsonl").read_bytes())
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        cells = list(csv.DictReader(stream))
    columns = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in lines] == [row["id"] for row in columns] == ids
    assert [row["id"] for row in cells] == ["'=1+1", "+2", "-3", "'@sum", *ids[4:]]
    for line, cell, column in zip(lines, cells, columns, strict=True):
        assert line["label"] == cell["label"] == column["label"]
        for label in LABELS:
            assert float(cell[f"probability_{label}"]) == line["probabilities"][label]
            assert column[f"probability_{label}"] == pytest.approx(line["probabilities"][label], rel=1e-6)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_escaped(start: str) -> None:
    assert escaped(f"{start}cmd|' /C calc'!A0").startswith(f"'{start}")
    assert escaped(f"x{start}") == f"x{start}"


@pytest.mark.parametrize("number", ["-1", "+2", "-0.5"])
def test_numbers_are_no_formulas(number: str) -> None:
    assert escaped(number) == number  # a label, or an id to join by


def test_json_lines_keep_the_ids_they_have(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\n{"id": "x", "text": "b"}\n{"id": 7, "text": "c"}\n', encoding="utf-8")
    assert [row["id"] for row in rows_of(run(model, input=path)[0])] == ["0", "x", "7"]


def test_columns_can_be_named(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("key,body\nk1,a warm film\nk2,dull\n", encoding="utf-8")
    for id_column, ids in (("key", ["k1", "k2"]), (None, ["0", "1"])):
        output, _ = run(model, input=path, id_column=id_column, text_column="body")
        assert [row["id"] for row in rows_of(output)] == ids
    with pytest.raises(DataError, match=r"no column 'text'; .* key, body\. Name the right one with --text-"):
        run(model, input=path)
    with pytest.raises(DataError, match=r"no column 'no'; .*--id-column\."):
        run(model, input=path, id_column="no", text_column="body")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_row_without_an_id_has_its_number_unless_the_column_was_named(
    model: Path, tmp_path: Path, suffix: str
) -> None:
    source = table(tmp_path / f"in{suffix}", ["film", "dull", "cast"], ["a", " ", "c"])
    assert [row["id"] for row in rows_of(run(model, input=source)[0])] == ["a", "1", "c"]
    with pytest.raises(DataError, match=r"row 1 of .* has no id in column 'id'\."):
        run(model, input=source, id_column="id")


def stop_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Ask for a stop when the command looks for one the `moment`th time."""
    seen = 0
    check = stopping.check

    def counted(where: str) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            stopping.ask("a test")
        check(where)

    monkeypatch.setattr(stopping, "check", counted)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_stopped_and_restarted_is_byte_equal(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(inputs, "BLOCK_DOCUMENTS", 6)
    source = table(tmp_path / "in.csv", reviews(20), [str(i) for i in range(20)])
    whole, broken = tmp_path / f"whole{suffix}", tmp_path / f"broken{suffix}"
    run(model, input=source, output=whole)
    for moment in (1, 4, 7):
        with monkeypatch.context() as patched:
            stop_at(patched, moment)
            with pytest.raises(Stopped, match=r"predict was stopped by a test\. The same command goes on\."):
                run(model, input=source, output=broken)
        stopping.forget()
        assert not broken.exists()
    finished = len(list((tmp_path / f".broken{suffix}.partial").glob("*.block")))
    assert 0 < finished < 4
    run(model, input=source, output=broken)
    assert broken.read_bytes() == whole.read_bytes()
    assert not (tmp_path / f".broken{suffix}.partial").exists()


def test_a_stop_without_output_says_how_to_go_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BLOCK_DOCUMENTS", 1)
    stop_at(monkeypatch, 5)
    with pytest.raises(Stopped, match=r"a test\. 2 predictions were written\. With --output FILE, the same command"):
        run(model, texts=("film", "dull", "story", "cast"))


def begin(model: Path, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unfinished output with two blocks."""
    with monkeypatch.context() as patched:
        stop_at(patched, 6)
        with pytest.raises(Stopped):
            run(model, input=source, output=output)
    stopping.forget()
    assert len(list((output.parent / f".{output.name}.partial").glob("*.block"))) == 2


def test_unfinished_output_of_other_input_or_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "BLOCK_DOCUMENTS", 3)
    ids = [str(i) for i in range(12)]
    source, output = table(tmp_path / "in.jsonl", reviews(12), ids), tmp_path / "out.jsonl"
    begin(model, source, output, monkeypatch)
    other_model = seal_classifier(tmp_path / "other", seed=9)
    with pytest.raises(InputError, match=r"unfinished and was begun otherwise: classifier was .*, now .*--force"):
        run(other_model, input=source, output=output)
    with pytest.raises(InputError, match="begun otherwise: bs was 64, now 2"):
        run(model, input=source, output=output, bs=2)
    changed = reviews(12)
    changed[4] += " !"
    for texts in (changed, reviews(12)[:2]):
        with pytest.raises(InputError, match=r"was begun with another input\. Give the same input again"):
            run(model, input=table(source, texts, ids[: len(texts)]), output=output)
    assert not output.exists()
    run(model, input=table(source, changed, ids), output=output, force=True)
    expected, _ = run(model, input=source)
    assert output.read_bytes() == expected


def test_damaged_block_is_made_again(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BLOCK_DOCUMENTS", 3)
    source, output = table(tmp_path / "in.txt", reviews(9), []), tmp_path / "out.jsonl"
    begin(model, source, output, monkeypatch)
    block = tmp_path / ".out.jsonl.partial" / "00000001.block"
    block.write_bytes(block.read_bytes()[:-3])
    _, log = run(model, input=source, output=output)
    assert "00000001.block is damaged; its texts are predicted again" in log
    assert output.read_bytes() == run(model, input=source)[0]


def test_an_output_that_is_there_is_kept(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    run(model, texts=("film",), output=output)
    before = output.read_bytes()
    with pytest.raises(UsageError, match=r"out\.jsonl is there already\. Replace it with --force"):
        run(model, texts=("dull",), output=output)
    assert output.read_bytes() == before
    run(model, texts=("dull",), output=output, force=True)
    assert output.read_bytes() != before


def test_a_command_that_made_nothing_leaves_nothing_in_the_way(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("review\nA warm film.\n", encoding="utf-8")
    with pytest.raises(DataError, match="text-column"):
        run(model, input=source, output=tmp_path / "out.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv"}
    run(model, input=source, output=tmp_path / "out.csv", text_column="review")
    assert (tmp_path / "out.csv").exists()


def test_an_output_that_came_meanwhile_is_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.csv"
    load = load_classifier_bundle

    def load_slowly(*args: Any, **kwargs: Any) -> Any:
        output.write_text("of another command", encoding="utf-8")
        return load(*args, **kwargs)

    monkeypatch.setattr("pipeline.inference.predict.load_classifier_bundle", load_slowly)
    with pytest.raises(UsageError, match=r"out\.csv is there already"):
        run(model, texts=("dull",), output=output)
    assert output.read_text(encoding="utf-8") == "of another command"


def test_two_commands_for_one_output(model: Path, tmp_path: Path) -> None:
    with (
        locked(tmp_path / ".out.csv.partial" / "out.csv"),
        pytest.raises(LockedError, match=r"being written by process \d+.* Wait for it, or choose another --output\."),
    ):
        run(model, texts=("film",), output=tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"texts": ("a",), "input": Path("x.txt")}, r"There are texts and an --input\. Give one"),
        ({"texts": ("a",), "output": Path("out.xlsx")}, r"out\.xlsx has no known suffix\. Predictions end in \."),
        ({"texts": ("a",), "output": Path("no/where/out.csv")}, r"in a folder that is not there\. Make it: mkdir -p"),
        ({"input": Path("x.csv"), "output": Path("./x.csv")}, r"--output x\.csv is the input\."),
        ({"texts": ("a",), "id_column": "key"}, r"--id-column names a column, and there is no table\. Give one"),
        ({"input": Path("x.txt"), "text_column": "body"}, r"--text-column names a column, and there is no table\."),
        ({"texts": ("a",), "precision": "int3"}, r"--precision cannot be 'int3': Input should be 'auto', 'fp16'"),
        ({"texts": ("a",), "precision": "fp16"}, r"^--precision is fp16, .* emulate slowly\. Use --precision auto\.$"),
        ({"texts": ("a",), "device": "cuda:99"}, r"^--device is cuda:99, .* here\. Use --device cpu or auto\.$"),
    ],
)
def test_commands_that_cannot_be_right(model: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(model, **asked)


@pytest.mark.parametrize("command", [("embed", "a"), ("generate",), ("serve", "--port", "0")])
def test_other_commands_name_their_own_options_too(command: tuple[str, ...]) -> None:
    refused = CliRunner().invoke(app, [*command, "--device", "cpu", "--precision", "fp16"])
    assert refused.exit_code == 2
    assert refused.stderr.endswith("would only emulate slowly. Use --precision auto.\n")
    assert "--set" not in refused.stderr


def test_inputs_that_cannot_be_read(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv is not there\. Correct --input\."):
        run(model, input=tmp_path / "gone.csv")
    with pytest.raises(InputError, match="is not a file"):
        run(model, input=tmp_path)
    (tmp_path / "in.xml").write_text("<x/>", encoding="utf-8")
    with pytest.raises(InputError, match=r"in\.xml is not a table that can be read\. Tables end in \.csv"):
        run(model, input=tmp_path / "in.xml")


def test_empty_input_gives_an_empty_output(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"")
    for suffix, expected in ((".jsonl", b""), (".csv", b"id,label,probability_negative,probability_positive\n")):
        run(model, input=tmp_path / "in.txt", output=tmp_path / f"out{suffix}")
        assert (tmp_path / f"out{suffix}").read_bytes() == expected
    run(model, input=tmp_path / "in.txt", output=tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    assert run(model, b"") == (b"", run(model, b"")[1])


def test_probabilities_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    broken = seal_classifier(tmp_path / "classifier", broken=True)
    with pytest.raises(DivergedError, match=r"not finite for 2 of 2 texts\. Try --precision fp32"):
        run(broken, texts=("film", "dull"))


def test_a_model_is_found_by_folder_or_run(tmp_path: Path) -> None:
    folder = seal_classifier(tmp_path / "models" / "mine" / "classifier-fwd")
    assert find_classifier("mine", tmp_path) == find_classifier(str(folder), Path("elsewhere")) == folder
    with pytest.raises(InputError, match=r"no classifier yours, and no run of this name has one in .*models"):
        find_classifier("yours", tmp_path)
    other = seal_classifier(tmp_path / "models" / "mine" / "classifier-bwd", direction="bwd")
    with pytest.raises(UsageError, match=f"two classifiers. Name one: --model {folder} or {other}"):
        find_classifier("mine", tmp_path)


def predicting(model: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command with pipes of which both ends are held."""
    command = [sys.executable, "-m", "pipeline", "predict", "--model", str(model), "--precision", "fp32", *options]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_pipe_that_pauses_gets_what_it_brought(model: Path) -> None:
    with predicting(model) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        rows = []
        for lines in (b"film\ndull\n", b"story\nca", b"st\n", b"", b"film"):
            process.stdin.write(lines)
            process.stdin.flush()
            rows += [json.loads(process.stdout.readline()) for _ in range(lines.count(b"\n"))]
        rows += map(json.loads, process.communicate()[0].splitlines())
    whole, _ = run(model, b"film\ndull\nstory\ncast\nfilm")
    expected = rows_of(whole)
    assert [(row["id"], row["label"]) for row in rows] == [(row["id"], row["label"]) for row in expected]
    for row, same in zip(rows, expected, strict=True):
        assert row["probabilities"] == pytest.approx(same["probabilities"])


@pytest.mark.parametrize("to_file", [False, True])
def test_a_pipe_that_pauses_can_be_left(model: Path, tmp_path: Path, to_file: bool) -> None:
    options = ("--output", str(tmp_path / "out.csv")) if to_file else ()
    with predicting(model, *options) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"film\n")
        process.stdin.flush()
        while b"predict:" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == ExitCode.STOPPED
        assert b"SIGTERM" in process.stderr.read()


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 9))
def test_lines_of_a_pipe_are_those_of_a_file(sizes: list[int], most: int) -> None:
    data = b"\r\n".join(b"x" * size for size in sizes)
    with TemporaryFile() as stream, pytest.MonkeyPatch.context() as patched:
        stream.write(data)
        stream.seek(0)
        read = os.read
        patched.setattr(os, "read", lambda descriptor, _: read(descriptor, most))
        assert list(from_pipe(stream.fileno(), "a pipe", lambda: None)) == list(from_lines(io.BytesIO(data), "a file"))


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_may_be_as_long_as_a_document(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(inputs, "MAX_DOCUMENT_BYTES", 10)
    for size, right in ((10, True), (11, False)):
        with TemporaryFile() as stream:
            stream.write(b"film\n" + b"x" * size + end)
            for reader in (lambda: from_pipe(stream.fileno(), "it", lambda: None), lambda: from_lines(stream, "it")):
                stream.seek(0)
                if right:
                    assert [text.text for text in reader() if text] == [b"film", b"x" * size]
                else:
                    with pytest.raises(InputError, match="Line 2 of it has over 10 bytes"):
                        list(reader())


@given(st.lists(st.integers(0, 5_000_000), max_size=12), st.integers(1, 5))
def test_blocks_hold_all_texts_in_order(sizes: list[int], most: int) -> None:
    texts = [InputText(str(i), bytes(size)) for i, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inputs, "BLOCK_DOCUMENTS", most)
        found = list(blocks(texts))
    assert [text.id for block in found for text in block] == [text.id for text in texts]
    for block in found:
        assert len(block) <= most
        assert len(block) == 1 or sum(len(text.text) for text in block) <= inputs.BLOCK_BYTES


def test_digest_tells_ids_texts_and_cuts_apart() -> None:
    blocks_of = [[("a", "bc")], [("ab", "c")], [("a", b"bc")], [("a", "b"), ("c", "")], [("a", "bc"), ("", "")]]
    digests = {digest(b"", [InputText(*pair) for pair in block]) for block in blocks_of}
    assert len(digests) == len(blocks_of)
    assert digest(b"x", []) != digest(b"", [])
