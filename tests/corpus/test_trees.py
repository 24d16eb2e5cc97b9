"""IMDB archives, packed and unpacked, and folders of text files."""

import io
import random
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Artifact
from pipeline.corpus.store import iter_documents, read_columns, read_labels
from pipeline.errors import DataError, InputError, UsageError
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.stage import Run, run_stage, stage_named

Reviews = dict[str, bytes]


def imdb_archive(shared_data: Path) -> Path:
    return shared_data / "aclImdb_v1.tar.gz"


@pytest.fixture(scope="module")
def reviews(shared_data: Path) -> Reviews:
    """Real reviews, twelve of each folder."""
    found: Reviews = {}
    left: dict[str, int] = {}
    with tarfile.open(imdb_archive(shared_data)) as archive:
        for member in archive:
            folder = member.name.rpartition("/")[0]
            if member.isreg() and left.setdefault(folder, 12) > 0 and member.name.endswith(".txt"):
                left[folder] -= 1
                stream = archive.extractfile(member)
                assert stream is not None
                found[member.name] = stream.read()
                if len(found) == 60:
                    break
    assert len(found) == 60
    return found


@pytest.fixture(scope="module")
def sample(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """200 reviews of each split of the whole archive."""
    recipe = Recipe.model_validate(
        {"prepare_corpus": {"kind": "imdb", "source": str(imdb_archive(shared_data)), "limit_per_split": 200}}
    )
    home = tmp_path_factory.mktemp("imdb")
    return run_stage(Run("imdb", recipe, home), stage_named("prepare_corpus"), Reporter(io.StringIO()))


def pack(path: Path, files: Reviews, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def unpack(folder: Path, files: Reviews) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def as_fastai(files: Reviews) -> Reviews:
    return {name.replace("aclImdb/", "imdb/").replace("train/unsup", "unsup"): c for name, c in files.items()}


def rows(corpus: Artifact) -> set[tuple[Any, ...]]:
    columns = ["doc_id", "split", "label", "text"]
    return {tuple(row.values()) for row in read_columns(corpus, columns).to_pylist()}


def test_sample_of_the_real_archive(sample: Artifact) -> None:
    metrics = sample.manifest.metrics
    assert metrics["documents"] == {"train": 180, "unlabelled": 200, "valid": 20, "test": 200}
    assert metrics["labels"] == {
        "train": {"neg": 90, "pos": 90}, "valid": {"neg": 10, "pos": 10}, "test": {"neg": 100, "pos": 100}
    }
    assert metrics["beyond_limit"] == 100_000 - 600
    assert metrics["published_source"] is False
    assert read_labels(sample) == ["neg", "pos"]
    assert set(sample.manifest.files) == {"documents.parquet", "labels.json"}
    table = read_columns(sample, ["doc_id", "split", "label", "group", "n_chars", "text"])
    assert [str(field.type) for field in table.schema] == ["string"] * 4 + ["int32", "string"]
    documents = table.to_pylist()
    assert all(row["n_chars"] == len(row["text"]) > 0 for row in documents)
    assert sum(row["n_chars"] for row in documents) == metrics["characters"]
    splits = [row["split"] for row in documents]
    assert list(dict.fromkeys(splits)) == ["train", "unlabelled", "valid", "test"]
    assert splits == sorted(splits, key=["train", "unlabelled", "valid", "test"].index)
    # A sample of the whole, not the first ones: the numbers in the ids reach into the last thousands.
    assert max(int(row["doc_id"].split("/")[2].split("_")[0]) for row in documents if row["split"] == "test") > 11_000


def test_store_reads_in_batches_what_it_reads_at_once(sample: Artifact) -> None:
    batches = [row for batch in iter_documents(sample, ["doc_id", "text"]) for row in batch.to_pylist()]
    assert batches == read_columns(sample, ["doc_id", "text"]).to_pylist()
    assert read_columns(sample, ["doc_id"], ["valid", "test"]).num_rows == 220


@pytest.mark.slow
def test_whole_archive(shared_data: Path, prepare: Any) -> None:
    corpus = prepare(kind="imdb", source=imdb_archive(shared_data))
    metrics = corpus.manifest.metrics
    assert metrics["documents"] == {"train": 22_500, "unlabelled": 50_000, "valid": 2_500, "test": 25_000}
    assert metrics["labels"]["test"] == {"neg": 12_500, "pos": 12_500}
    assert metrics["labels"]["train"] == {"neg": 11_250, "pos": 11_250}
    assert metrics["labels"]["valid"] == {"neg": 1_250, "pos": 1_250}
    assert metrics["duplicates"]["across"]["train/valid"] == 0
    assert metrics["duplicates"]["across"]["unlabelled/valid"] == 0


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "w"])
def test_packed_equals_unpacked(prepare: Any, tmp_path: Path, reviews: Reviews, mode: str) -> None:
    shuffled = dict(random.Random(1).sample(sorted(reviews.items()), len(reviews)))
    packed = prepare("packed", kind="imdb", source=pack(tmp_path / "a.tar", shuffled, mode), valid_fraction=0.25)
    unpacked = prepare("unpacked", kind="imdb", source=unpack(tmp_path / "a", reviews), valid_fraction=0.25)
    assert packed.manifest.metrics["documents"] == {"train": 18, "unlabelled": 12, "valid": 6, "test": 24}
    assert rows(packed) == rows(unpacked)


def test_both_layouts_give_the_same_corpus(prepare: Any, tmp_path: Path, reviews: Reviews) -> None:
    acl = prepare("acl", kind="imdb", source=pack(tmp_path / "aclImdb_v1.tar.gz", reviews))
    fastai = prepare("fastai", kind="imdb", source=pack(tmp_path / "imdb.tgz", as_fastai(reviews)))
    inside = prepare("inside", kind="imdb", source=unpack(tmp_path / "x", as_fastai(reviews)) / "imdb")
    assert rows(acl) == rows(fastai) == rows(inside)


def test_only_reviews_are_read(prepare: Any, tmp_path: Path, reviews: Reviews) -> None:
    extra = {"aclImdb/README": b"read me", "aclImdb/train/urls_pos.txt": b"http", "aclImdb/train/pos/._1.txt": b"x"}
    corpus = prepare(kind="imdb", source=pack(tmp_path / "a.tgz", reviews | extra))
    assert sum(corpus.manifest.metrics["documents"].values()) == 60


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "w"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_truncated_archive(prepare: Any, tmp_path: Path, reviews: Reviews, mode: str, share: float) -> None:
    path = pack(tmp_path / "cut.tar", reviews, mode)
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"cut\.tar is truncated or not a tar archive"):
        prepare(kind="imdb", source=path)
    assert not (tmp_path / "home/data/run/corpus").exists()


def test_archive_cut_between_two_members(prepare: Any, tmp_path: Path, reviews: Reviews) -> None:
    path = pack(tmp_path / "cut.tar", reviews, "w")
    with tarfile.open(path) as archive:
        cut = archive.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[:cut])
    # The members before the cut are whole, and tarfile alone would take them for everything.
    with pytest.raises(InputError, match=r"cut\.tar is truncated .*it ends without its end mark"):
        prepare(kind="imdb", source=path)


def test_archive_with_a_changed_byte(prepare: Any, tmp_path: Path, reviews: Reviews) -> None:
    path = pack(tmp_path / "bad.tgz", reviews)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum of the uncompressed data
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.tgz is truncated or not a tar archive: CRC check failed"):
        prepare(kind="imdb", source=path)


def test_not_an_archive(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(InputError, match=r"text\.tgz is truncated or not a tar archive"):
        prepare(kind="imdb", source=tmp_path / "text.tgz")


def test_archive_of_another_layout(prepare: Any, tmp_path: Path) -> None:
    path = pack(tmp_path / "other.tgz", {"other/train/good/1.txt": b"a film"})
    with pytest.raises(InputError, match=r"other\.tgz holds no IMDB reviews\. Expected aclImdb/"):
        prepare(kind="imdb", source=path)


def test_archive_with_an_unsafe_member(prepare: Any, tmp_path: Path) -> None:
    path = pack(tmp_path / "evil.tgz", {"aclImdb/../../train/pos/1.txt": b"a film"})
    with pytest.raises(InputError, match=r"evil\.tgz holds a member with the unsafe name 'aclImdb/\.\./"):
        prepare(kind="imdb", source=path)


def test_member_that_comes_twice(prepare: Any, tmp_path: Path, reviews: Reviews) -> None:
    path = pack(tmp_path / "twice.tar", reviews, "w")
    name = next(iter(reviews))
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo(name))  # empty: dropped, so not a second document
        member = tarfile.TarInfo(name)
        member.size = 5
        archive.addfile(member, io.BytesIO(b"again"))
    with pytest.raises(DataError, match=r"twice\.tar has the document id '\w+/\w+/\w+' more than once \(1 such"):
        prepare(kind="imdb", source=path)


def folder_of(root: Path, **splits: dict[str, list[str]]) -> Path:
    for split, labels in splits.items():
        for label, texts in labels.items():
            for number, text in enumerate(texts):
                path = root / split / label / f"{number}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    return root


def numbered(word: str, n: int) -> list[str]:
    return [f"{word} film number {i}" for i in range(n)]


def test_folder(prepare: Any, tmp_path: Path) -> None:
    root = folder_of(
        tmp_path / "f", train={"good": numbered("good", 10), "bad": numbered("bad", 10), "ugly": numbered("ugly", 20)},
        test={"good": numbered("fine", 3)}, unlabelled={"": numbered("some", 2), "more": numbered("more", 2)},
    )
    (root / ".DS_Store").write_text("x")
    corpus = prepare(kind="folder", source=root)
    metrics = corpus.manifest.metrics
    assert metrics["documents"] == {"train": 36, "unlabelled": 4, "valid": 4, "test": 3}
    assert metrics["labels"]["valid"] == {"bad": 1, "good": 1, "ugly": 2}
    assert read_labels(corpus) == ["bad", "good", "ugly"]
    assert ("test/good/0", "test", "good", "fine film number 0") in rows(corpus)


def test_folder_identity_is_its_content(prepare: Any, tmp_path: Path) -> None:
    labels = {"good": numbered("good", 3), "bad": numbered("bad", 3)}
    first = prepare("one", kind="folder", source=folder_of(tmp_path / "a", train=labels))
    moved = prepare("two", kind="folder", source=folder_of(tmp_path / "b/c", train=labels))
    assert first.manifest.fingerprint == moved.manifest.fingerprint
    (tmp_path / "a/train/good/0.txt").write_text("good film number 9")  # as long as before
    with pytest.raises(InputError, match="made with other settings: its source changed"):
        prepare("one", kind="folder", source=tmp_path / "a")


def test_folder_errors(prepare: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no split folders"):
        prepare(kind="folder", source=tmp_path)
    with pytest.raises(DataError, match=r"Folder 'tran' names no split \('tran/good/0.txt'\)"):
        prepare(kind="folder", source=folder_of(tmp_path / "typo", tran={"good": ["x"]}))
    with pytest.raises(DataError, match="lies deeper than split/label/file"):
        prepare(kind="folder", source=folder_of(tmp_path / "deep", train={"good/en": ["x"]}))
    with pytest.raises(UsageError, match=r"prepare_corpus\.sha256 is set, but .* is a folder"):
        prepare(kind="folder", source=tmp_path / "deep", sha256="0" * 64)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match=r"file\.txt is not a folder"):
        prepare(kind="folder", source=tmp_path / "file.txt")


def test_classes(prepare: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Train has only one class: 'good'"):
        prepare(kind="folder", source=folder_of(tmp_path / "a", train={"good": numbered("x", 9)}))
    both = {"good": numbered("good", 9), "bad": numbered("bad", 9)}
    with pytest.raises(DataError, match="Split test has the class 'ugly', which train never has"):
        prepare(kind="folder", source=folder_of(tmp_path / "b", train=both, test={"ugly": ["u"]}))
    with pytest.raises(DataError, match="holds no text \\(2 empty documents\\)"):
        prepare(kind="folder", source=folder_of(tmp_path / "c", train={"good": ["", " \n"]}))
    with pytest.raises(DataError, match="No document is left to train on"):
        prepare(kind="folder", source=folder_of(tmp_path / "d", test=both))


def test_rerun_after_a_kill_starts_over(prepare: Any, tmp_path: Path) -> None:
    root = folder_of(tmp_path / "f", train={"good": numbered("good", 9), "bad": numbered("bad", 9)})
    first = prepare("one", kind="folder", source=root)
    partial = tmp_path / "home/data/two/.corpus.partial"
    (partial / "resume").mkdir(parents=True)
    (partial / "resume/fingerprint").write_text(first.manifest.fingerprint)
    (partial / "resume/spool.parquet").write_bytes(b"half")
    (partial / "documents.parquet").write_bytes(b"half")
    (partial / "leftover.bin").write_bytes(b"half")
    second = prepare("two", kind="folder", source=root)
    assert second.manifest.files == first.manifest.files
    shutil.rmtree(root)
    with pytest.raises(InputError, match="There is no source"):
        prepare("three", kind="folder", source=root)
    assert prepare("one", kind="folder").manifest == first.manifest  # no source named: the sealed corpus stands
