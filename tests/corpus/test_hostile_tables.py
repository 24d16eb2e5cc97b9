"""T13: tables and wheels made to fill the memory, that lie about their sizes, or hold what is no text."""

import bz2
import csv
import json
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import Apart, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus import parquet_pages, rotten_tomatoes, tables
from pipeline.corpus.documents import MAX_DOCUMENT_BYTES, RawDocument
from pipeline.corpus.store import read_columns
from pipeline.corpus.tables import read_table
from pipeline.errors import DataError, InputError, PipelineError
from pipeline.settings import PrepareCorpusSettings

MB = 2**20


def rows_of(path: Path, **chosen: Any) -> list[RawDocument]:
    return list(read_table(path, PrepareCorpusSettings(kind="table", source=str(path), **chosen)))


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["hole.csv", "hole.jsonl"])
def test_a_line_of_ten_gigabytes(apart: Apart, tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, b"text\n" if name.endswith("csv") else b'{"text": "x"}\n')
    with path.open("ab") as stream:
        stream.truncate(10 * 2**30)  # a hole: it takes no space
    cost = apart.read("table", path)
    assert cost.said == (
        f"3 {path} has a row of more than {MAX_DOCUMENT_BYTES:,} characters that reaches line 2. Check its quotes and "
        "line ends, or cut the document into several."
    )
    assert cost.peak_mb < 4.5 * MAX_DOCUMENT_BYTES / MB


def test_a_quote_that_never_closes_and_a_row_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_DOCUMENT_BYTES", 1000)
    save(tmp_path / "t.csv", b'text,label\nfine,1\n"open,1\n' + b"a line\n" * 1000)
    with pytest.raises(InputError, match=r"has a row of more than 1,000 characters that reaches line 145\. Check"):
        rows_of(tmp_path / "t.csv")
    save(tmp_path / "t.csv", b"text,label\n" + b'"one\n",' * 1000)
    with pytest.raises(InputError, match=r"has a row of more than 1,000 characters"):
        rows_of(tmp_path / "t.csv")
    save(tmp_path / "t.csv", b"text,label\n" + b'"one\ntwo",1\n' * 1000)
    assert len(rows_of(tmp_path / "t.csv")) == 1000


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_longest_document_is_read_and_a_longer_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"t.{suffix}"

    def write(size: int) -> None:
        text = "x" * size
        if suffix == "parquet":
            pq.write_table(pa.table({"text": [text]}), path)
        else:
            path.write_text(f"text\n{text}\n" if suffix == "csv" else json.dumps({"text": text}) + "\n")

    monkeypatch.setattr(tables, "MAX_DOCUMENT_BYTES", 2000)
    write(1900)
    assert [len(row.text) for row in rows_of(path, label_column=None)] == [1900]
    write(2001)
    with pytest.raises(InputError, match=r"of more than 2,000 (characters|bytes)"):
        rows_of(path, label_column=None)


@pytest.mark.parametrize(("line", "reason"), [
    (b"[" * 200_000, "is not valid JSON in line 1: maximum recursion depth"),
    (b'{"text": ' + b"9" * 5000 + b"}", "is not valid JSON in line 1: Exceeds the limit"),
    (b'{"text": ["a", "list"]}', "row 0 of .* holds a list or an object where text is expected"),
    (b'{"text": {"a": 1}}', "row 0 of .* holds a list or an object where text is expected"),
    (b'{"text": "x", "label": ["a"]}', "row 0 of .* holds a list or an object where text is expected"),
    (b'"text"', "holds no JSON object in line 1"), (b"NaN", "holds no JSON object in line 1"),
    (b"null", "holds no JSON object in line 1"), (b'{"text": "x"', "is not valid JSON in line 1"),
    (b'{"text": "\x01"}', "is not valid JSON in line 1: Invalid control character"),
    (b"\xff\xfe{\0", "is not valid JSON in line 1"),
])
def test_json_that_is_no_row(tmp_path: Path, line: bytes, reason: str) -> None:
    path = save(tmp_path / "t.jsonl", line + b"\n")
    label = "label" if b"label" in line else None
    with pytest.raises(DataError, match=reason):
        rows_of(path, label_column=label)


def test_json_values_that_are_no_text(tmp_path: Path) -> None:
    values = [
        "NaN", "Infinity", "-Infinity", "null", "true", "12", "1.5", '"NaN"', '""', '"\\ud83d\\ude00"', '"\\ud800"'
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"text": {value}, "label": {value}}}\n' for value in values))
    rows = rows_of(path)
    assert [row.text for row in rows] == [
        "", "inf", "-inf", "", "true", "12", "1.5", "NaN", "", "\U0001f600", "\ud800"
    ]
    assert [row.label for row in rows] == [row.text or None for row in rows]


def test_a_header_of_a_million_columns_and_control_characters(tmp_path: Path) -> None:
    path = save(tmp_path / "t.csv", b"\x1b[2J," + b"c," * 1_000_000 + b"d\n")
    with pytest.raises(DataError, match="has no column 'text'; its columns are ") as error:
        rows_of(path)
    assert str(error.value).isprintable()
    assert "and 999,982 more" in str(error.value)
    assert len(str(error.value)) < 1000
    save(path, b"text,split\nx,\x1b[2J" + b"y" * 5000 + b"\n")
    with pytest.raises(DataError, match=r"row 0 of .* has the unknown split '\\x1b\[2Jy+'") as error:
        rows_of(path, label_column=None, split_column="split")
    assert len(str(error.value)) < 400


def test_a_cell_of_csv_is_text_and_nothing_else(prepare: Any, tmp_path: Path) -> None:
    """A formula is dangerous to a spreadsheet only; it is kept as text here."""
    cells = ["=cmd|'/c calc'!A0", "@SUM(1)", "+1", "-1", "\t=1", "'; DROP TABLE x;--", "${jndi:ldap://x}", "../../etc"]
    path = save(tmp_path / "t.csv", "".join(f'"{c}",{i % 2}\n' for i, c in enumerate(["text", *cells])).encode()
                .replace(b'"text",0', b"text,label"))
    corpus = prepare(kind="table", source=path, valid_fraction=0, test_fraction=0)
    assert sorted(read_columns(corpus, ["text"])["text"].to_pylist()) == sorted(cells)


def test_a_parquet_dictionary_that_repeats_a_text_without_end(apart: Apart, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    indices = pa.array([0] * 100_000, pa.int32())
    text = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * MB]))
    pq.write_table(pa.table({"text": text.cast(pa.dictionary(pa.int32(), pa.string()))}), path, compression="zstd")
    assert path.stat().st_size < 2 * 10**6
    cost = apart.read("table", path)
    found = re.match(r"3 .*t\.parquet holds more than 500 times its size in text: ([\d,]+) bytes so far\.", cost.said)
    assert found, cost.said
    assert int(found[1].replace(",", "")) < 500 * MB
    assert cost.documents < 500
    assert cost.peak_mb < 300


def test_parquet_pages_of_zeros(apart: Apart, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    text = pa.array(["\0" * (20 * MB)] * 5)
    pq.write_table(pa.table({"text": text}), path, compression="zstd", use_dictionary=False, write_statistics=False)
    cost = apart.read("table", path)
    assert re.match(r"3 .* unpacks [\d,]+ bytes of row group 0 to 104,[\d,]+, more than 500 times\.", cost.said)
    assert (cost.documents, cost.peak_mb < 50) == (0, True)


def test_a_parquet_page_that_claims_two_gigabytes(apart: Apart, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(500)]}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    lie = bytes.fromhex("1500 15feffffff0f 1502 00")  # a data page of 2^31-1 bytes, one stored; end of the header
    content[at : at + len(lie)] = lie
    path.write_bytes(content)
    cost = apart.read("table", path)
    assert cost.said.startswith(f"3 {path} has a page of 2,147,483,647 bytes in row group 0; 268,435,456 is the limit.")
    assert cost.peak_mb < 50


def test_page_sizes_are_those_arrow_writes(tmp_path: Path) -> None:
    table = pa.table({
        "text": [f"{i} " + "word " * (i % 400) for i in range(7_000)], "label": [str(i % 3) for i in range(7_000)],
        "number": list(range(7_000)),
    })
    for name, settings_ in {
        "plain": {"use_dictionary": False}, "pages v2": {"data_page_version": "2.0"}, "none": {"compression": "none"},
        "small": {"data_page_size": 3000, "write_batch_size": 5, "use_dictionary": ["label"],
                  "write_page_checksum": True, "write_page_index": True},
    }.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=2500, **settings_)
        metadata = pq.ParquetFile(path).metadata
        largest = parquet_pages.largest_pages(path, [0, 1])
        assert len(largest) == metadata.num_row_groups == 3
        for group, size in enumerate(largest):
            assert 0 < size <= metadata.row_group(group).column(0).total_uncompressed_size
            assert size < 20_000 if name == "small" else size > 100_000
        assert [row.text.decode() for row in rows_of(path)] == table["text"].to_pylist()


def test_parquet_types_that_are_no_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for nested in (pa.array([["a", "b"]]), pa.array([{"a": 1}])):
        pq.write_table(pa.table({"text": nested}), path)
        with pytest.raises(DataError, match=r"t\.parquet holds lists or objects in column 'text' where"):
            rows_of(path, label_column=None)
    spelled = ["one", None, "two"]
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()):
        pq.write_table(pa.table({"text": pa.array(spelled).cast(kind)}), path)
        assert [row.text for row in rows_of(path, label_column=None)] == [b"one", "", b"two"]


def test_parquet_text_that_is_not_utf8(prepare: Any, tmp_path: Path) -> None:
    values = pa.array([b"caf\xe9", b"fine \xc3\xa9", b"\xed\xa0\x80"], pa.binary())
    text = pa.StringArray.from_buffers(3, values.buffers()[1], values.buffers()[2])
    pq.write_table(pa.table({"text": text, "label": ["a", "b", "a"]}), tmp_path / "t.parquet", use_dictionary=False)
    corpus = prepare(kind="table", source=tmp_path / "t.parquet", valid_fraction=0, test_fraction=0)
    assert corpus.manifest.metrics["cleaned"]["invalid_utf8"] == 2
    assert read_columns(corpus, ["text"])["text"].to_pylist() == ["caf\ufffd", "fine \u00e9", "\ufffd\ufffd\ufffd"]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_damaged_tables_end_in_a_message_and_never_in_a_crash(apart: Apart, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    rows = [{"text": f"a text, \"quoted\" {i}", "label": str(i % 2)} for i in range(60)]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
    elif suffix == "csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["text", "label"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = apart("damage", str(path))
    assert said["read"] + said["refused"] == 200
    assert said["refused"] > 25


@given(st.binary(max_size=300), st.sampled_from(["csv", "jsonl", "parquet"]))
@settings(max_examples=75)
def test_any_bytes_are_rows_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    head = {"csv": b"text\n", "jsonl": b'{"text": 1}\n', "parquet": b"PAR1"}[suffix]
    path = save(tmp_path_factory.mktemp("any") / f"t.{suffix}", head + content)
    try:
        rows = rows_of(path, label_column=None)
    except PipelineError:
        return
    assert suffix != "parquet"
    assert all(isinstance(row.text, str | bytes) for row in rows)


def wheel(path: Path, content: bytes, method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr(rotten_tomatoes.MEMBER, content)
    return path


@pytest.mark.parametrize(("method", "reason"), [
    (zipfile.ZIP_DEFLATED, r"corpus_full\.csv\.bz2 in .*a\.whl has SHA-256 \w{64}, expected \w{64}\. Fetch it again"),
    (zipfile.ZIP_BZIP2, r".*a\.whl is not the wheel .*: its member has the compression type 12\. Give that wheel"),
    (zipfile.ZIP_LZMA, r".*a\.whl is not the wheel .*: its member has the compression type 14\. Give that wheel"),
])
def test_a_wheel_that_is_a_bomb(apart: Apart, tmp_path: Path, method: int, reason: str) -> None:
    path = wheel(tmp_path / "a.whl", bytes((64 if method == zipfile.ZIP_DEFLATED else 4) * MB), method)
    before = snapshot(tmp_path)
    cost = apart.read("rotten-tomatoes", path)
    assert re.match(rf"3 .*{reason}", cost.said), cost.said
    assert cost.peak_mb < 40
    assert snapshot(tmp_path) == before


def test_a_member_that_is_a_bomb_is_not_unpacked(apart: Apart, tmp_path: Path) -> None:
    path = save(tmp_path / "member.csv.bz2", bz2.compress(b"category,text,movie_name\n" + bytes(32 * MB)))
    cost = apart.read("rotten-tomatoes", path)
    assert "has SHA-256" in cost.said
    assert cost.peak_mb < 16


def test_a_damaged_wheel_ends_in_a_message(tmp_path: Path) -> None:
    whole = wheel(tmp_path / "a.whl", bz2.compress(b"category,text,movie_name\nfresh,x,y\n" * 50), 8).read_bytes()
    chance = random.Random(3)
    for _ in range(150):
        content = bytearray(whole)
        content[chance.randrange(len(content))] = chance.randrange(256)
        path = save(tmp_path / "a.whl", bytes(content))
        with pytest.raises(InputError, match=r"a\.whl (is not the wheel|has SHA-256)"):
            list(rotten_tomatoes.read_rotten_tomatoes(path))
