"""The small corpora of the ladder: sentences, names, nietzsche.txt and the sentences in two languages."""

import hashlib
import random
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import Server

from pipeline import download
from pipeline.artifact import Artifact
from pipeline.corpus import source
from pipeline.corpus.labelled_lines import PublishedFiles, read_names, read_sentences
from pipeline.corpus.store import read_columns
from pipeline.errors import InputError
from pipeline.published import PublishedFile, WholeSha256

CONTENT = {"one.txt": b"a\nb\n", "two.txt": b"c\n"}
TOYS = PublishedFiles("toys", {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()})
SEEDS = {"sentences": "seeds/sentiment_labelled_sentences", "names": "seeds/names"}


def pack(path: Path, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip archive as macOS makes them, with a shadow of every file."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, text in content.items():
            archive.writestr(f"some folder/{name}", text)
            archive.writestr(f"__MACOSX/some folder/._{name}", b"\0")
    return path


def unpack(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_bytes(text)
    return folder


def rows(corpus: Artifact) -> list[dict[str, Any]]:
    return read_columns(corpus, ["doc_id", "split", "label", "text"]).to_pylist()


def test_sentences_are_those_of_uci(shared_data: Path) -> None:
    found = list(read_sentences(shared_data / SEEDS["sentences"]))
    assert Counter(document.label for document in found) == {"negative": 1500, "positive": 1500}
    assert Counter(document.doc_id.partition("/")[0] for document in found) == {"amazon": 1000, "imdb": 1000,
                                                                                "yelp": 1000}
    first = next(document for document in found if document.doc_id == "yelp/0")
    assert (first.text, first.label, first.split) == ("Wow... Loved this place.", "positive", "train")


def test_names_are_those_of_the_tutorial(shared_data: Path) -> None:
    found = list(read_names(shared_data / SEEDS["names"]))
    assert len(found) == 20_074
    languages = Counter(document.label for document in found)
    assert (len(languages), languages["Russian"], languages["Portuguese"]) == (18, 9408, 74)
    texts = [document.text for document in found]
    assert all(isinstance(text, str) and text == text.strip() != "" for text in texts)
    assert {"Park", "Abe", "B\u00e9ringer"} <= set(texts)


@pytest.mark.parametrize("kind", SEEDS)
def test_archive_and_folder_give_the_same_corpus(prepare: Any, shared_data: Path, tmp_path: Path, kind: str) -> None:
    folder = shared_data / SEEDS[kind]
    archive = pack(tmp_path / "a.zip", {path.name: path.read_bytes() for path in folder.iterdir()})
    unpacked, packed = prepare("folder", kind=kind, source=folder), prepare("zip", kind=kind, source=archive)
    assert rows(unpacked) == rows(packed)
    assert packed.manifest.metrics["published_source"] is True


def test_sentences_are_split_as_in_the_note(prepare: Any, shared_data: Path) -> None:
    corpus = prepare(kind="sentences", source=shared_data / SEEDS["sentences"], test_fraction=0.1)
    assert corpus.manifest.metrics["documents"] == {"train": 2430, "valid": 270, "test": 300}


def test_a_hundred_names_are_tested_evenly(prepare: Any, shared_data: Path) -> None:
    corpus = prepare(kind="names", source=shared_data / SEEDS["names"], test_documents=100)
    found = corpus.manifest.metrics["labels"]["test"]
    assert len(found) == 18
    assert sum(found.values()) == pytest.approx(100, abs=3)
    # Most Scottish names are English ones, too, and some Arabic ones are there a dozen times: equal texts go together.
    assert {count for label, count in found.items() if label not in {"Arabic", "Scottish"}} <= {5, 6}
    assert corpus.manifest.metrics["duplicates"]["across"]["train/test"] == 0
    tenth = prepare("tenth", kind="names", source=shared_data / SEEDS["names"], test_fraction=0.1)
    assert tenth.manifest.metrics["documents"]["test"] == pytest.approx(2007, abs=10)


def test_nietzsche_is_known_as_published(prepare: Any, shared_data: Path, tmp_path: Path) -> None:
    copy = shared_data / "seeds/nietzsche.txt"  # its UTF-8 was read as Windows-1252 and stored again
    assert prepare("copy", kind="nietzsche", source=copy).manifest.metrics["published_source"] is False
    mended = tmp_path / "nietzsche.txt"
    mended.write_bytes(copy.read_text(encoding="utf-8").encode("cp1252"))
    corpus = prepare("mended", kind="nietzsche", source=mended)
    assert corpus.manifest.metrics["published_source"] is True
    assert (mended.stat().st_size, len(mended.read_text(encoding="utf-8"))) == (600_901, 600_893)
    assert [row["split"] for row in rows(corpus)][-1] == "valid"


def test_sentences_in_two_languages(prepare: Any) -> None:
    found = rows(prepare(kind="bow-languages"))
    assert Counter((row["split"], row["label"]) for row in found) == {
        ("train", "English"): 2, ("train", "Spanish"): 2, ("valid", "English"): 1, ("valid", "Spanish"): 1,
        ("test", "English"): 1, ("test", "Spanish"): 1,
    }


def test_files_are_found_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    folder = unpack(tmp_path / "outer" / "inner", {**CONTENT, "readme.txt": b"not asked for"})
    for path in (folder, tmp_path / "outer", pack(tmp_path / "a.zip", CONTENT)):
        assert TOYS.read(path) == CONTENT
        assert TOYS.mismatch(path) == ""


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_missing_and_changed_files_are_refused(tmp_path: Path, form: str) -> None:
    def made(name: str, content: dict[str, bytes]) -> Path:
        return unpack(tmp_path / name, content) if form == "folder" else pack(tmp_path / name, content)

    mend = r"Give the archive of toys, or the folder it unpacks to, with --source\."
    with pytest.raises(InputError, match=rf"missing holds no two\.txt\. {mend}"):
        TOYS.read(made("missing", {"one.txt": CONTENT["one.txt"]}))
    changed = made("changed", {**CONTENT, "two.txt": b"d\n"})
    with pytest.raises(InputError, match=rf"two\.txt in .*changed has SHA-256 \w{{64}}, expected \w{{64}}\. {mend}"):
        TOYS.read(changed)
    assert re.match(r"two\.txt in .*changed has SHA-256 \w{64}, expected", TOYS.mismatch(changed))


@pytest.mark.parametrize(("method", "said"), [
    (zipfile.ZIP_DEFLATED, r"one\.txt in .*a\.zip has SHA-256"),
    (zipfile.ZIP_BZIP2, r"a\.zip is not the archive of toys: its member has the compression type 12\. Give"),
    (zipfile.ZIP_LZMA, r"a\.zip is not the archive of toys: its member has the compression type 14\. Give"),
])
def test_an_archive_that_is_a_bomb(tmp_path: Path, method: int, said: str) -> None:
    path = pack(tmp_path / "a.zip", {**CONTENT, "one.txt": bytes(16 * 2**20)}, method)
    with pytest.raises(InputError, match=said):
        TOYS.read(path)


def test_what_is_no_archive_and_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"a\.zip is not the archive of toys: File is not a zip file\. Give"):
        TOYS.read(path)
    whole, chance, refused = pack(path, CONTENT).read_bytes(), random.Random(3), 0
    for _ in range(150):
        content = bytearray(whole)
        content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        said = TOYS.mismatch(path)
        assert said == "" or re.search(r"a\.zip (is not the archive|holds no|has SHA-256)", said)
        refused += said != ""
    assert 0 < refused < 150  # some bytes say nothing of these files


def test_a_link_in_the_folder_is_refused(tmp_path: Path) -> None:
    folder = unpack(tmp_path / "toys", {"one.txt": CONTENT["one.txt"]})
    (tmp_path / "elsewhere.txt").write_bytes(CONTENT["two.txt"])
    (folder / "two.txt").symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(InputError, match=r"toys holds 'two\.txt', which is a symbolic link"):
        TOYS.read(folder)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    with Server(b"") as running:
        yield running


def test_an_archive_is_fetched_once_and_checked_inside(
    server: Server, prepare: Any, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in (shared_data / SEEDS["sentences"]).iterdir()}
    server.content = pack(tmp_path / "made.zip", files).read_bytes()
    home = PublishedFile(server.url("sentences.zip"), source.SENTENCES)
    monkeypatch.setattr(source, "SENTENCES_HOMES", (home,))
    corpus = prepare("one", kind="sentences")
    assert (corpus.manifest.source["url"], corpus.manifest.source["published"]) == (home.url, True)
    prepare("two", kind="sentences")
    assert server.asked == [None]
    (tmp_path / "home/data/downloads/sentences.zip").unlink()
    server.content = pack(tmp_path / "made.zip", files | {"yelp_labelled.txt": b"x\t1\n"}).read_bytes()
    with pytest.raises(InputError, match=r"sentences\.zip could not be downloaded .*not the published file: "
                                         r"yelp_labelled\.txt in .* has SHA-256 \w{64}, expected"):
        prepare("three", kind="sentences")


def test_a_text_is_fetched_and_checked(
    server: Server, prepare: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.content = b"One paragraph.\n\nAnother.\n" * 200
    home = PublishedFile(server.url("nietzsche.txt"), WholeSha256(hashlib.sha256(server.content).hexdigest()))
    monkeypatch.setattr(source, "NIETZSCHE_HOMES", (home,))
    assert prepare("one", kind="nietzsche").manifest.source["url"] == home.url
    (tmp_path / "home/data/downloads/nietzsche.txt").unlink()
    server.content += b"\n"
    with pytest.raises(InputError, match=r"nietzsche\.txt could not be downloaded .*SHA-256 \w{64}, published \w{64}"):
        prepare("two", kind="nietzsche")


@pytest.mark.parametrize("kind", ["nietzsche", "sentences", "names"])
def test_a_source_that_is_not_there(prepare: Any, tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"There is no source .*nowhere\. Give the right path with --source"):
        prepare(kind=kind, source=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"is not there, or not the published file, and offline nothing is fetched"):
        prepare(kind=kind, offline=True)
