"""Tables, cleaning, and what rows may hold."""

import csv
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus import spool
from pipeline.corpus.store import read_columns, read_labels
from pipeline.errors import DataError, InputError

ROWS: list[dict[str, Any]] = [
    {"id": f"d{i}", "text": f"film {i}, \"quoted\"\nsecond line", "label": ("good", "bad")[i % 2],
     "split": "test" if i >= 16 else "train", "film": f"f{i // 2}"}
    for i in range(20)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def texts(corpus: Any) -> dict[str, str]:
    table = read_columns(corpus, ["doc_id", "text"])
    return dict(zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True))


def test_all_formats_give_the_same_corpus(prepare: Any, tmp_path: Path) -> None:
    found = [
        prepare(suffix, kind="table", source=write(tmp_path / f"t.{suffix}", ROWS), split_column="split",
                id_column="id", group_column="film")
        for suffix in ("csv", "jsonl", "parquet")
    ]
    assert found[0].manifest.files == found[1].manifest.files == found[2].manifest.files
    table = read_columns(found[0], ["doc_id", "split", "label", "group", "text"]).to_pylist()
    assert {row["doc_id"]: row["text"] for row in table} == {row["id"]: row["text"] for row in ROWS}
    assert {row["doc_id"]: row["label"] for row in table} == {row["id"]: row["label"] for row in ROWS}
    assert {row["doc_id"]: row["group"] for row in table} == {row["id"]: row["film"] for row in ROWS}
    assert found[0].manifest.metrics["documents"] == {"train": 14, "valid": 2, "test": 4}
    assert found[0].manifest.metrics["groups"] == {"train": 7, "valid": 1, "test": 2}


def test_missing_values(prepare: Any, tmp_path: Path) -> None:
    rows = [*ROWS[:16], *({"id": f"n{i}", "text": word, "label": "", "split": "train", "film": ""}
                          for i, word in enumerate(["nan", "NULL", "None", "NA", "", "  \n"]))]
    for suffix in ("csv", "jsonl", "parquet"):
        corpus = prepare(suffix, kind="table", source=write(tmp_path / f"t.{suffix}", rows), id_column="id")
        found = texts(corpus)
        assert [found.get(f"n{i}") for i in range(6)] == ["nan", "NULL", "None", "NA", None, None]
        metrics = corpus.manifest.metrics
        assert (metrics["cleaned"]["empty"], metrics["cleaned"]["blank"]) == (1, 1)
        assert metrics["without_label"] == {"train": 4}
        assert metrics["documents"]["unlabelled"] == 4
    typed = pa.table({"text": ["a film", None, "b film", "c film"], "label": [1.0, 0.0, float("nan"), 0.0]})
    pq.write_table(typed, tmp_path / "typed.parquet")
    corpus = prepare("typed", kind="table", source=tmp_path / "typed.parquet", valid_fraction=0, test_fraction=0)
    assert read_labels(corpus) == ["0", "1"]
    assert corpus.manifest.metrics["documents"] == {"train": 2, "unlabelled": 1}


def test_cleaning_is_counted(prepare: Any, tmp_path: Path, said: Any) -> None:
    lines = [
        b'{"text": "a\\u0000b", "label": 0}', b'{"text": "x\\ud800y", "label": 1}', b'{"text": "caf\xe9", "label": 0}',
        b'{"text": "one\\r\\ntwo\\rthree", "label": 1}', b'{"text": "\\ufeffmark", "label": 0}',
        json.dumps({"text": "long " * 2_000_000, "label": 1}).encode(),
    ]
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(lines) + b"\n\n")
    corpus = prepare(kind="table", source=tmp_path / "t.jsonl", valid_fraction=0, test_fraction=0)
    found = texts(corpus)
    assert [found[str(i)] for i in range(5)] == ["a\ufffdb", "x\ufffdy", "caf\ufffd", "one\ntwo\nthree", "mark"]
    assert len(found["5"]) == 10_000_000
    assert corpus.manifest.metrics["cleaned"] == {
        "empty": 0, "blank": 0, "bom": 1, "invalid_utf8": 1, "nul": 1, "surrogates": 1, "line_ends": 1,
        "control_characters": 0, "special_tokens": 0, "long_runs": 0, "over_1m_characters": 1,
    }
    assert "cleaned: bom 1, invalid_utf8 1, nul 1, surrogates 1, line_ends 1, over_1m_characters 1" in said.getvalue()
    assert "there is no test split" in said.getvalue()


def test_csv_with_bytes_that_are_not_utf8(prepare: Any, tmp_path: Path) -> None:
    rows = [b"\xef\xbb\xbftext,label", b"caf\xe9,0", b"", b"na\xc3\xafve\0,1", b"x" * 200_000 + b",1"]
    (tmp_path / "t.csv").write_bytes(b"\n".join(rows))
    corpus = prepare(kind="table", source=tmp_path / "t.csv", valid_fraction=0, test_fraction=0)
    assert texts(corpus) == {"0": "caf\ufffd", "1": "na\u00efve\ufffd", "2": "x" * 200_000}
    assert corpus.manifest.metrics["cleaned"]["invalid_utf8"] == 1


def test_whole_numbers_are_the_same_label_and_group_however_a_table_writes_them(prepare: Any, tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    rows = [{"text": f"film {i}", "label": i % 2, "film": i // 4} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows[:20]), folder / "a.parquet")
    floats = [{**row, "label": float(row["label"]), "film": float(row["film"])} for row in rows[20:]]
    floats += [{"text": "no label", "label": None, "film": None}]
    pq.write_table(pa.Table.from_pylist(floats), folder / "b.parquet")
    write(folder / "c.jsonl", [{"text": "one more", "label": 1.0, "film": 0.0}, {"text": "half", "label": 0.5}])
    corpus = prepare(kind="table", source=folder, group_column="film", test_fraction=0.2)
    assert read_labels(corpus) == ["0", "0.5", "1"]
    table = read_columns(corpus, ["group", "split"]).to_pylist()
    of_group: dict[str, set[str]] = {}
    for row in table:
        of_group.setdefault(row["group"], set()).add(row["split"])
    assert {"0", "9"} <= set(of_group)
    assert all(len(splits) == 1 for group, splits in of_group.items() if group)


def test_a_label_that_is_not_utf8_is_refused(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"text,label\na,x\nb,n\xe9\n")
    with pytest.raises(DataError, match=r"row 1 of .*t\.csv has 'n\ufffd', which is not UTF-8\. Save the file"):
        prepare(kind="table", source=tmp_path / "t.csv")


def test_json_lines_may_leave_out_what_is_null_but_not_the_text(prepare: Any, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "no label"}, *({"text": f"film {i}", "label": i % 2} for i in range(20))]
    corpus = prepare(kind="table", source=write(tmp_path / "t.jsonl", rows), test_fraction=0.2)
    assert corpus.manifest.metrics["documents"]["unlabelled"] == 1
    with pytest.raises(DataError, match=r"t\.jsonl has no 'text' in line 22\. Write null where there is no text"):
        prepare("b", kind="table", source=write(tmp_path / "t.jsonl", [*rows, {"txt": "typing error", "label": 1}]))


def test_table_without_labels_is_for_language_models(prepare: Any, tmp_path: Path) -> None:
    corpus = prepare(kind="table", source=write(tmp_path / "t.csv", ROWS), label_column=None)
    assert corpus.manifest.metrics["documents"] == {"train": 18, "valid": 2}
    assert corpus.manifest.metrics["labels"] == {}
    assert read_labels(corpus) == []


def test_unlabelled_test_row_stays_in_test(prepare: Any, tmp_path: Path) -> None:
    rows = [*ROWS, {"id": "t", "text": "no label", "label": "", "split": "test", "film": "z"}]
    corpus = prepare(kind="table", source=write(tmp_path / "t.csv", rows), split_column="split")
    assert corpus.manifest.metrics["documents"]["test"] == 5
    assert sum(corpus.manifest.metrics["labels"]["test"].values()) == 4
    assert corpus.manifest.metrics["without_label"] == {"test": 1}


def test_errors(prepare: Any, tmp_path: Path) -> None:
    def table(**change: Any) -> Path:
        return write(tmp_path / "t.csv", [row | change for row in ROWS])

    with pytest.raises(DataError, match=r"has no column 'body'; its columns are id, text, label, split, film"):
        prepare(kind="table", source=table(), text_column="body")
    for suffix in ("jsonl", "parquet"):
        with pytest.raises(DataError, match=r"has no column 'kind'; its columns are id, text, label, split, film"):
            prepare(kind="table", source=write(tmp_path / f"t.{suffix}", ROWS), label_column="kind")
    with pytest.raises(DataError, match=r"row 0 of .*t\.csv has the unknown split 'trian'. Splits are train, valid"):
        prepare(kind="table", source=table(split="trian"), split_column="split")
    with pytest.raises(DataError, match=r"has the document id 'same' more than once \(19 such documents\)"):
        prepare(kind="table", source=table(id="same"), id_column="id")
    with pytest.raises(DataError, match=r"row 0 of .* has no id in column 'id'"):
        prepare(kind="table", source=table(id=""), id_column="id")
    with pytest.raises(DataError, match=r"Group 'f0' is in both train and test \(1 such groups\)"):
        prepare(kind="table", source=table(film="f0"), split_column="split", group_column="film")
    (tmp_path / "t.xls").write_text("x")
    with pytest.raises(InputError, match=r"t\.xls is not a table that can be read\. Tables end in \.csv, \.jsonl"):
        prepare(kind="table", source=tmp_path / "t.xls")
    with pytest.raises(InputError, match=r"kind table needs a source\. Give it with --source PATH"):
        prepare(kind="table")


def test_broken_tables(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,1\ntwo,2,3\n")
    with pytest.raises(DataError, match=r"a\.csv has 3 fields in line 3, but 2 columns"):
        prepare(kind="table", source=tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text('text,label\n"one,1\n')
    with pytest.raises(DataError, match=r"b\.csv is not valid CSV in line 2: unexpected end of data"):
        prepare(kind="table", source=tmp_path / "b.csv")
    (tmp_path / "c.jsonl").write_text('{"text": "x", "label": 1}\n{"text": \n')
    with pytest.raises(DataError, match=r"c\.jsonl is not valid JSON in line 2"):
        prepare(kind="table", source=tmp_path / "c.jsonl")
    (tmp_path / "d.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match=r"d\.jsonl holds no JSON object in line 1"):
        prepare(kind="table", source=tmp_path / "d.jsonl")
    path = write(tmp_path / "e.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"e\.parquet is truncated or not a Parquet file"):
        prepare(kind="table", source=path)
    (tmp_path / "f.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"f\.csv holds no text \(0 empty documents\)"):
        prepare(kind="table", source=tmp_path / "f.csv")
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}),
                   tmp_path / "g.parquet")
    with pytest.raises(DataError, match=r"g\.parquet holds no text \(0 empty documents\)"):
        prepare(kind="table", source=tmp_path / "g.parquet")


def test_two_columns_of_the_wanted_name(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,text\none,1,two\n")
    pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * 3, ["text", "label", "text"]), tmp_path / "b.parquet")
    for name in ("a.csv", "b.parquet"):
        with pytest.raises(DataError, match=rf"{name} has 2 columns called 'text'\. Rename or take out all but one"):
            prepare(kind="table", source=tmp_path / name)
    rows = "".join(f"text {row},{row % 2},x,y\n" for row in range(20))
    (tmp_path / "c.csv").write_text(f"text,label,other,other\n{rows}")
    assert prepare(kind="table", source=tmp_path / "c.csv").manifest.metrics["documents"]


def test_row_groups_are_small(prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"text {i} {i % 7}", "label": i % 2} for i in range(5_000)]
    corpus = prepare(kind="table", source=write(tmp_path / "t.parquet", rows), test_fraction=0)
    with pq.ParquetFile(corpus.file("documents.parquet")) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [2000, 2000, 500, 500]
    ids = read_columns(corpus, ["doc_id"], ["train"])["doc_id"].to_pylist()
    assert ids == sorted(ids, key=int)
    monkeypatch.setattr(spool, "ROW_GROUP_CHARS", 3_000_000)
    large = [{"text": f"{i} " + "x" * 900_000, "label": i % 2} for i in range(8)]
    corpus = prepare("large", kind="table", source=write(tmp_path / "l.parquet", large), test_fraction=0)
    with pq.ParquetFile(corpus.file("documents.parquet")) as file:
        assert file.metadata.num_row_groups > 2


def test_copies_of_valid_texts_leave_train(prepare: Any, tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": i % 2, "split": "train"} for i in range(10)]
    rows += [{"text": "  FILM   3 ", "label": 1, "split": "valid"}, {"text": "new", "label": 0, "split": "dev"}]
    corpus = prepare(kind="table", source=write(tmp_path / "t.csv", rows), split_column="split", test_fraction=0)
    metrics = corpus.manifest.metrics
    assert metrics["documents"] == {"train": 9, "valid": 2}
    assert metrics["duplicates"] == {"within": {"train": 0, "valid": 0}, "across": {"train/valid": 0}, "dropped": 1}
    assert "3" not in texts(corpus)


def test_duplicates_are_counted(prepare: Any, tmp_path: Path, said: Any) -> None:
    rows = [{"text": f"film {i // 2}", "label": (i // 2) % 2, "split": "train"} for i in range(40)]
    rows += [{"text": "Film 1", "label": 1, "split": "test"}, {"text": "film 2", "label": 0, "split": "test"}]
    corpus = prepare(kind="table", source=write(tmp_path / "t.csv", rows), split_column="split")
    duplicates = corpus.manifest.metrics["duplicates"]
    assert "train has 2 of the test texts too, as the source has them: accuracies count them\n" in said.getvalue()
    assert duplicates["across"] == {"train/valid": 0, "train/test": 2, "valid/test": 0}
    assert duplicates["within"] == {"train": 18, "valid": 2, "test": 0}
    assert corpus.manifest.metrics["labels"]["valid"] == {"0": 2, "1": 2}


def test_a_large_table_is_split_in_seconds(prepare: Any, tmp_path: Path) -> None:
    n = 20_000
    table = pa.table({"text": [f"text {i}" for i in range(n)], "label": [i % 3 for i in range(n)],
                      "group": [f"g{i % 9_000}" for i in range(n)]})
    pq.write_table(table, tmp_path / "t.parquet")
    start = time.process_time()
    corpus = prepare(kind="table", source=tmp_path / "t.parquet", group_column="group")
    assert time.process_time() - start < 10
    documents = corpus.manifest.metrics["documents"]
    assert documents["test"] == pytest.approx(0.2 * n, rel=0.02)
    assert documents["valid"] == pytest.approx(0.08 * n, rel=0.02)
