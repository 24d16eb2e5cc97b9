"""A folder of tables: one corpus, read whole or in shares, and gone on with where it was stopped."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parts, stopping
from pipeline.artifact import Artifact
from pipeline.corpus.store import read_columns
from pipeline.errors import DataError, InputError, Stopped, UsageError
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.stage import PREPARE, Run
from pipeline.stages import prepare_corpus

N_TABLES, N_ROWS = 5, 1_500


def rows_of(table: int) -> list[dict[str, Any]]:
    return [
        {"id": f"{table}-{row}", "text": f"film {table} {row} is {'so ' * (row % 9)}good", "label": f"class {row % 3}"}
        for row in range(N_ROWS)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five tables, of all kinds, among files that are none."""
    folder = tmp_path / "tables"
    (folder / "more").mkdir(parents=True)
    for table in range(N_TABLES):
        rows = rows_of(table)
        if table % 2:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"part-{table}.jsonl").write_text(lines, encoding="utf-8")
        else:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"part-{table}.parquet")
    (folder / "more/last.csv").write_text("id,text,label\nx,a film,class 0\ny,no film,class 1\n", encoding="utf-8")
    (folder / "README.md").write_text("no table")
    (folder / ".hidden.csv").write_text("no table either")
    return folder


def run_of(name: str, home: Path, **settings: Any) -> Run:
    return Run(name, Recipe.model_validate({"prepare_corpus": {"kind": "table", **settings}}), home)


def files(corpus: Artifact) -> dict[str, str]:
    return {name: record.sha256 for name, record in corpus.manifest.files.items()}


def test_all_tables_are_one_corpus(prepare: Any, folder: Path, tmp_path: Path) -> None:
    corpus = prepare(kind="table", source=folder)
    ids = read_columns(corpus, ["doc_id"])["doc_id"].to_pylist()
    assert len(ids) == N_TABLES * N_ROWS + 2
    assert {"more/last.csv:1", "part-0.parquet:0", f"part-3.jsonl:{N_ROWS - 1}"} <= set(ids)
    # With ids of their own the same rows in one table give the same corpus, byte for byte.
    rows = [row for table in range(N_TABLES) for row in rows_of(table)]
    one = tmp_path / "one.parquet"
    pq.write_table(pa.Table.from_pylist(rows), one)
    (folder / "more/last.csv").unlink()
    several = prepare("several", kind="table", source=folder, id_column="id")
    assert files(several) == files(prepare("one", kind="table", source=one, id_column="id"))
    assert several.manifest.metrics == prepare("one", kind="table", source=one, id_column="id").manifest.metrics


@pytest.mark.parametrize("of", [1, 3, 8])
def test_shares_put_together_are_what_one_job_makes(prepare: Any, folder: Path, tmp_path: Path, of: int) -> None:
    whole = prepare(kind="table", source=folder)
    for number in reversed(range(1, of + 1)):
        parts.make_share(
            run_of("shares", tmp_path / "home", source=str(folder)), PREPARE, parts.Share(number, of), Reporter()
        )
    (kept,) = (tmp_path / "home/data/shares").glob(".corpus.parts-*")
    assert len(list(kept.glob("spool-*.parquet"))) == N_TABLES + 1

    def unread(*args: Any) -> Iterator[Any]:
        raise AssertionError("a table is read again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_corpus, "clean_text", unread)
        together = prepare("shares", kind="table", source=folder)
    assert files(together) == files(whole)
    assert together.manifest.metrics == whole.manifest.metrics
    assert not list((tmp_path / "home/data/shares").glob(".corpus.p*"))


def test_what_a_share_did_not_make_is_made_when_they_are_put_together(
    prepare: Any, folder: Path, tmp_path: Path
) -> None:
    whole = prepare(kind="table", source=folder)
    run = run_of("some", tmp_path / "home", source=str(folder))
    parts.make_share(run, PREPARE, parts.Share(2, 2), Reporter())
    assert files(prepare("some", kind="table", source=folder)) == files(whole)


def test_a_damaged_spool_is_named(prepare: Any, folder: Path, tmp_path: Path) -> None:
    run = run_of("hurt", tmp_path / "home", source=str(folder))
    parts.make_share(run, PREPARE, parts.Share(1, 1), Reporter())
    (kept,) = (tmp_path / "home/data/hurt").glob(".corpus.parts-*")
    spool = kept / "spool-000001.parquet"
    data = bytearray(spool.read_bytes())
    data[len(data) // 2] ^= 1
    spool.write_bytes(data)
    with pytest.raises(InputError, match=r"000001\.parquet is damaged\. Have it .*: rm \S+/spool-000001\.json, then"):
        prepare("hurt", kind="table", source=folder)
    spool.with_suffix(".json").unlink()
    assert files(prepare("hurt", kind="table", source=folder)) == files(prepare(kind="table", source=folder))


def test_one_file_has_no_shares(folder: Path, tmp_path: Path) -> None:
    run = run_of("one", tmp_path / "home", source=str(folder / "part-1.jsonl"))
    with pytest.raises(UsageError, match=r"part-1\.jsonl is read in one go: only a folder of tables has shares"):
        parts.make_share(run, PREPARE, parts.Share(1, 2), Reporter())


def test_a_stopped_run_does_not_read_again_what_it_has(
    prepare: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(kind="table", source=folder)
    n_cleaned = 0
    resume = tmp_path / "home/data/stopped/.corpus.partial/resume"
    killed = resume / "spool-000001.parquet.host-1"
    clean_text: Callable[..., Any] = prepare_corpus.clean_text

    def counting(*args: Any) -> Any:
        nonlocal n_cleaned
        n_cleaned += 1
        if n_cleaned == 2 * N_ROWS:
            stopping.ask("a test")
        assert not killed.exists()
        return clean_text(*args)

    monkeypatch.setattr(prepare_corpus, "clean_text", counting)
    with pytest.raises(Stopped):
        prepare("stopped", kind="table", source=folder)
    stopping.forget()
    assert sorted(path.name for path in resume.glob("spool-*")) == ["spool-000000.json", "spool-000000.parquet"]
    killed.write_bytes(b"half")
    n_cleaned = -(10**9)
    assert files(prepare("stopped", kind="table", source=folder)) == files(whole)
    assert n_cleaned + 10**9 < N_TABLES * N_ROWS - N_ROWS + 3


def test_a_parquet_table_without_rows_is_no_damage(prepare: Any, folder: Path) -> None:
    whole = prepare(kind="table", source=folder)
    for settings in ({}, {"use_dictionary": False}):
        pq.write_table(pa.Table.from_pylist(rows_of(0)).slice(0, 0), folder / f"part-{5 + len(settings)}.parquet",
                       **settings)
    with_empty = prepare("with-empty", kind="table", source=folder)
    assert with_empty.manifest.metrics["documents"] == whole.manifest.metrics["documents"]


def test_tables_called_train_and_test_are_not_put_together_without_being_asked(prepare: Any, tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    (folder / "val").mkdir(parents=True)
    for name, n in (("train-0.csv", 20), ("train-1.csv", 20), ("test.csv", 8), ("val/a.csv", 4)):
        rows = "".join(f"{name} film {i},{i % 2}\n" for i in range(n))
        (folder / name).write_text(f"text,label\n{rows}", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds test\.csv, a split by its name, .*splits_from_names=true"):
        prepare(kind="table", source=folder)
    apart = prepare("apart", kind="table", source=folder, splits_from_names=True)
    assert apart.manifest.metrics["documents"] == {"train": 40, "valid": 4, "test": 8}
    table = read_columns(apart, ["doc_id", "split"]).to_pylist()
    assert {row["doc_id"].partition(":")[0]: row["split"] for row in table} == {
        "train-0.csv": "train", "train-1.csv": "train", "test.csv": "test", "val/a.csv": "valid",
    }
    together = prepare("together", kind="table", source=folder, splits_from_names=False)
    assert sum(together.manifest.metrics["documents"].values()) == 52
    (folder / "more.csv").write_text("text,label\na film,0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds more\.csv, whose name tells no split, beside test\.csv"):
        prepare("apart", force=True, kind="table", source=folder, splits_from_names=True)
    for name in ("test.csv", "more.csv", "val/a.csv"):
        (folder / name).unlink()
    assert prepare("alone", kind="table", source=folder).manifest.metrics["documents"]["test"] == 8  # held out


def test_folders_without_a_table_and_links_are_refused(prepare: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no table\. Tables end in \.csv, \.jsonl, \.parquet"):
        prepare(kind="table", source=tmp_path / "empty")
    os.symlink(folder / "part-0.parquet", folder / "part-9.parquet")
    with pytest.raises(InputError, match=r"'part-9\.parquet', which is a symbolic link"):
        prepare(kind="table", source=folder)
