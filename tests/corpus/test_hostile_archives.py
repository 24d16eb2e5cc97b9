"""T13: archives and folders made to write elsewhere, to fill the memory, or to pass damage off as an end."""

import gzip
import lzma
import os
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hostile import END, Apart, entry, good_reviews, pax_record, snapshot, with_zeros
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus import archive as limits
from pipeline.corpus import trees
from pipeline.corpus.documents import MAX_DOCUMENT_BYTES
from pipeline.corpus.trees import read_folder, read_imdb
from pipeline.errors import DataError, ExitCode, InputError

GB = 2**30


def save(path: Path, entries: bytes) -> Path:
    path.write_bytes(entries + END)
    return path


UNSAFE = {
    "parent": entry("aclImdb/train/pos/../../../../evil.txt"),
    "absolute": entry("/aclImdb/train/pos/1_1.txt"),
    "pax path": entry(pax={"path": "../../aclImdb/train/pos/1_1.txt"}),
    "long name": entry("x/" * 150 + "../" * 300 + "evil.txt"),
    "absolute pax path": entry(pax={"path": "/tmp/evil/train/pos/1_1.txt"}),
}
NOT_FILES = {
    "a symbolic link": entry(content=b"", kind=tarfile.SYMTYPE, link="../../../../../../etc/passwd"),
    "a hard link": entry(content=b"", kind=tarfile.LNKTYPE, link="/etc/passwd"),
    "a device": entry(content=b"", kind=tarfile.CHRTYPE),
    "a named pipe": entry(content=b"", kind=tarfile.FIFOTYPE),
    "no regular file": entry(content=b"x", kind=b"Q"),
}
CLAIMS = {
    "of 20,000,000,000 bytes": entry(size=20_000_000_000),
    "pax size": entry(pax={"size": "20000000000"}),
    "sparse": entry(kind=tarfile.GNUTYPE_SPARSE, size=20_000_000_000),
    "pax sparse": entry(pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "20000000000"}),
    "pax sparse 0.1": entry(pax={"GNU.sparse.size": "20000000000", "GNU.sparse.map": "0,20000000000"}),
    "pax header": entry("pax", b"", tarfile.XHDTYPE, size=20_000_000_000),
    "long name": entry("name", b"", tarfile.GNUTYPE_LONGNAME, size=20_000_000_000),
}


@pytest.mark.parametrize("member", [*UNSAFE.values(), *NOT_FILES.values(), *CLAIMS.values()],
                         ids=[*UNSAFE, *NOT_FILES, *CLAIMS])
def test_nothing_is_written_and_nothing_sealed(prepare: Any, tmp_path: Path, member: bytes) -> None:
    (tmp_path / "in").mkdir()
    path = save(tmp_path / "in/evil.tar", good_reviews() + member)
    before = snapshot(tmp_path, without=tmp_path / "home")
    with pytest.raises(InputError, match=r"in/evil\.tar ") as error:
        prepare(kind="imdb", source=path)
    assert error.value.exit_code == ExitCode.INPUT
    assert error.value.mend
    assert snapshot(tmp_path, without=tmp_path / "home") == before
    left = {p.name for p in (tmp_path / "home").rglob("*")}
    assert not left & {"manifest.json", "corpus", "aclImdb", "evil.txt", "1_1.txt", "0_9.txt"}
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("what", NOT_FILES)
def test_what_is_no_file_is_not_taken_for_a_review(tmp_path: Path, what: str) -> None:
    path = save(tmp_path / "a.tar", good_reviews() + NOT_FILES[what])
    with pytest.raises(InputError, match=rf"a\.tar holds 'aclImdb/train/pos/0_9\.txt', which is {what} where a doc"):
        list(read_imdb(path))


def test_what_is_no_review_may_be_anything(tmp_path: Path) -> None:
    others = [
        entry("aclImdb/latest", b"", tarfile.SYMTYPE, link="/etc"), entry("aclImdb", b"", tarfile.DIRTYPE),
        entry("aclImdb/train/pos", b"", tarfile.DIRTYPE, size=999), entry("dev", b"", tarfile.CHRTYPE),
        entry("comment", pax_record("comment", "x" * 700), tarfile.XGLTYPE), entry("aclImdb/README", b"r" * 1000),
        entry("vol", b"v" * 30, b"V"), entry("link", b"l" * 600, tarfile.GNUTYPE_LONGLINK),
    ]
    path = save(tmp_path / "a.tar", b"".join(others) + good_reviews())
    assert len(list(read_imdb(path))) == 24


def test_names_of_every_length_and_header_form(tmp_path: Path) -> None:
    long = f"aclImdb/train/pos/{'n' * 180}.txt"
    path = tmp_path / "a.tar"
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        with tarfile.open(path, "w" if number == 0 else "a", format=form) as packed:
            for name in (f"{number}{long}", f"{number}aclImdb/train/neg/\u00fc_1.txt"):
                member = tarfile.TarInfo(name)
                member.size = 0
                packed.addfile(member)
    ids = [document.doc_id for document in read_imdb(path)]
    assert ids == [f"train/pos/{'n' * 180}", "train/neg/\u00fc_1"] * 2
    text = entry(pax={"path": "aclImdb/train/pos/7_7.txt", "size": "5"}, content=b"seven", size=0)
    first = next(read_imdb(save(tmp_path / "b.tar", text)))
    assert (first.doc_id, first.text) == ("train/pos/7_7", b"seven")


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claimed_size_takes_no_memory(apart: Apart, tmp_path: Path, claim: str) -> None:
    packed = with_zeros(good_reviews() + CLAIMS[claim], "gzip", 20 * GB)
    path = tmp_path / "claim.tgz"
    path.write_bytes(packed)
    cost = apart.read("imdb", path) if claim in ("sparse", "pax header") else None
    with pytest.raises(InputError, match=r"20,000,000,000 bytes|holds the sparse file") as error:
        list(read_imdb(path))
    if cost:
        assert cost.said == f"3 {error.value}"
        assert cost.peak_mb < 20


@pytest.mark.parametrize("packer", ["gzip", "bz2", "xz"])
def test_a_bomb_of_ten_gigabytes_stops_after_a_hundredth(apart: Apart, tmp_path: Path, packer: str) -> None:
    path = tmp_path / f"bomb.{packer}"
    path.write_bytes(with_zeros(good_reviews() + entry("aclImdb/README", b"", size=10 * GB), packer, 10 * GB))
    cost = apart.read("imdb", path)
    assert cost.documents == 24
    found = re.fullmatch(
        r"3 .*bomb\.\w+ unpacks to more than 500 times its size: ([\d,]+) bytes out of its first ([\d,]+)\. It looks "
        r"like a decompression bomb\. If it is yours, give it as a folder \(kind folder or imdb\)\.", cost.said,
    )
    assert found, cost.said
    unpacked, packed = (int(group.replace(",", "")) for group in found.groups())
    assert unpacked <= 10 * GB / 100
    assert unpacked > limits.MAX_RATIO * packed
    assert cost.peak_mb < 24


def test_a_bomb_of_many_reviews(apart: Apart, tmp_path: Path) -> None:
    zeros = bytes(2**20)
    path = tmp_path / "bomb.tgz"
    path.write_bytes(gzip.compress(b"".join(entry(f"aclImdb/train/pos/{i}_9.txt", zeros) for i in range(100))))
    cost = apart.read("imdb", path)
    assert re.match(r"3 .*bomb\.tgz unpacks to more than 500 times its size", cost.said)
    assert 60 < cost.documents < 70
    assert cost.peak_mb < 24


def test_a_bomb_of_empty_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 2**22)
    path = tmp_path / "bomb.xz"
    path.write_bytes(lzma.compress(entry(content=b"") * 10_000) * 2)
    with pytest.raises(InputError, match="unpacks to more than 500 times its size"):
        list(read_imdb(path))


def test_a_document_of_the_greatest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_DOCUMENT_BYTES", 1000)
    save(tmp_path / "a.tar", entry(content=b"x" * 1000))
    assert [len(document.text) for document in read_imdb(tmp_path / "a.tar")] == [1000]
    save(tmp_path / "b.tar", entry(content=b"x" * 1001))
    with pytest.raises(InputError, match=r"b\.tar holds '.*0_9\.txt' of 1,001 bytes; a document has at most 1,000"):
        list(read_imdb(tmp_path / "b.tar"))


def test_more_members_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.MAX_MEMBERS > 100 * 100_025, "the IMDB archive, and corpora a hundred times as large"
    path = save(tmp_path / "a.tar", good_reviews())
    monkeypatch.setattr(limits, "MAX_MEMBERS", 24)
    assert len(list(read_imdb(path))) == 24
    monkeypatch.setattr(limits, "MAX_MEMBERS", 23)
    with pytest.raises(InputError, match=r"a\.tar has more than 23 members\. Split it"):
        list(read_imdb(path))


def test_tiny_documents_are_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two-letter reviews in xz have the highest ratio that honest archives have."""
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 0)
    path = tmp_path / "tiny.tar.xz"
    tiny = b"".join(entry(f"aclImdb/train/pos/{i}_{i % 10}.txt", b"ok") for i in range(5_000))
    path.write_bytes(lzma.compress(tiny + END))
    assert len(tiny) / path.stat().st_size > 200
    assert sum(1 for _ in read_imdb(path)) == 5_000


def test_xz_that_asks_for_more_memory_than_it_needs(tmp_path: Path) -> None:
    honest = lzma.compress(good_reviews() + END, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}])
    # The size of the dictionary is one byte of the block header; to make such a file in earnest takes 15 GB.
    block = bytearray(honest[12 : 12 + (honest[12] + 1) * 4])
    block[block.index(lzma.FILTER_LZMA2) + 2] = 37  # 1.5 GB
    block[-4:] = zlib.crc32(block[:-4]).to_bytes(4, "little")
    path = tmp_path / "a.tar.xz"
    path.write_bytes(honest[:12] + bytes(block) + honest[12 + len(block) :])
    with pytest.raises(InputError, match=r"a\.tar\.xz is truncated or not a tar archive: Memory usage limit exceeded"):
        list(read_imdb(path))


def test_xz_of_several_streams(tmp_path: Path) -> None:
    tar = good_reviews() + END
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(tar[:5000]) + bytes(8) + lzma.compress(tar[5000:]) + bytes(4))
    assert len(list(read_imdb(path))) == 24
    path.write_bytes(lzma.compress(tar[:5000]) + lzma.compress(tar[5000:])[:-10])
    with pytest.raises(InputError, match="compressed file ended before the end-of-stream marker"):
        list(read_imdb(path))


DAMAGED = {
    "a header in the middle": (good_reviews(1) + b"\xff" * 512 + good_reviews(1), "bad checksum"),
    "a negative size": (entry(size=-(10**6)), "a header has the size -1000000"),
    "a pax record longer than its header": (entry("pax", b"99 path=x\n", tarfile.XHDTYPE), "a pax header is damaged"),
    "a pax record of length 0": (entry("pax", b"0 path=x\n", tarfile.XHDTYPE), "a pax header is damaged"),
    "a pax record without an equals sign": (entry("pax", b"8 path x\n", tarfile.XHDTYPE), "a pax header is damaged"),
    "a pax size that is no number": (entry(pax={"size": "-5"}), "a size that is no number"),
    "digits that tarfile's pattern takes minutes for": (
        entry("pax", b"1" * 200_000, tarfile.XHDTYPE), "a pax header is damaged"
    ),
    "a second archive behind the end mark": (good_reviews(1) + END + good_reviews(1), "more after its end mark"),
    "nothing": (b"", "it ends without its end mark"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_not_taken_for_the_end(tmp_path: Path, damage: str) -> None:
    content, reason = DAMAGED[damage]
    path = tmp_path / "a.tar"
    path.write_bytes(content + (END if content else b""))
    with pytest.raises(InputError, match=rf"a\.tar is truncated or not a tar archive: .*{reason}"):
        list(read_imdb(path))


def test_an_endless_row_of_extension_headers(tmp_path: Path) -> None:
    """tarfile calls itself for each of them."""
    path = save(tmp_path / "a.tar", entry("pax", pax_record("comment", "x"), tarfile.XHDTYPE) * 5_000 + good_reviews())
    assert len(list(read_imdb(path))) == 24


@given(st.data())
@settings(max_examples=100)
def test_any_damage_is_told_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Plain tar has no checksum of its content: a damaged one may give other texts, but never more or fewer unsaid."""
    whole = bytearray(good_reviews(1) + entry(pax={"path": "aclImdb/train/pos/8_8.txt"}) + END)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("damaged") / "a.tar"
    path.write_bytes(whole[: cut or len(whole)])
    try:
        found = list(read_imdb(path))
    except InputError:
        return
    assert 0 < len(found) <= 5


@pytest.mark.parametrize("links", ["file", "folder", "split", "loop", "pipe", "device"])
def test_a_folder_with_links_is_refused(prepare: Any, tmp_path: Path, links: str) -> None:
    secret = tmp_path / "outside/secret.txt"
    secret.parent.mkdir()
    secret.write_text("the secret", encoding="utf-8")
    root = tmp_path / "source"
    for label in ("pos", "neg"):
        (root / "train" / label).mkdir(parents=True)
        for i in range(5):
            (root / "train" / label / f"{i}.txt").write_text(f"{label} film {i}", encoding="utf-8")
    evil = {"split": "test", "folder": "train/ugly", "loop": "train/pos/loop"}.get(links, "train/pos/9.txt")
    if links == "pipe":
        os.mkfifo(root / evil)
    else:
        targets = {"file": secret, "loop": root, "device": Path("/dev/zero")}
        (root / evil).symlink_to(targets.get(links, secret.parent))
    with pytest.raises(InputError, match=rf"holds '{evil}', which is (a symbolic link|no regular file): ") as error:
        prepare(kind="folder", source=root)
    assert error.value.mend == "Give a copy that holds the files themselves (cp -rL SOURCE COPY)."
    (root / evil).unlink()
    (root / ".cache").symlink_to("/")
    (root / "train/pos/.9.txt").symlink_to(secret)
    corpus = prepare("mended", kind="folder", source=root, test_fraction=0)
    assert sum(corpus.manifest.metrics["documents"].values()) == 10


def test_a_link_to_the_folder_itself_is_what_the_user_asked_for(tmp_path: Path) -> None:
    (tmp_path / "real/train/pos").mkdir(parents=True)
    (tmp_path / "real/train/pos/1.txt").write_text("film")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [document.text for document in read_folder(tmp_path / "link")] == [b"film"]


def test_a_huge_file_in_a_folder(apart: Apart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train/pos").mkdir(parents=True)
    with (tmp_path / "train/pos/1.txt").open("wb") as stream:
        stream.truncate(20 * GB)  # a hole: it takes no space
    cost = apart.read("folder", tmp_path)
    assert f"holds 'train/pos/1.txt' of more than {MAX_DOCUMENT_BYTES:,} bytes, the most a document" in cost.said
    assert cost.peak_mb < 2.5 * MAX_DOCUMENT_BYTES / 2**20
    monkeypatch.setattr(trees, "MAX_DOCUMENT_BYTES", 4)
    (tmp_path / "train/pos/1.txt").write_text("film")
    assert len(list(read_folder(tmp_path))) == 1


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_a_source_that_never_ends(prepare: Any, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"is neither a file nor a folder\. Give the right path with --source"):
        prepare(kind="imdb", source=tmp_path / name)


def test_names_from_archives_and_folders_are_quoted(tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07"
    path = save(tmp_path / "a.tar", entry(f"../{evil}"))
    (tmp_path / "f" / evil).mkdir(parents=True)
    (tmp_path / "f" / evil / "1.txt").write_text("x")
    for read, error in ((lambda: read_imdb(path), InputError), (lambda: read_folder(tmp_path / "f"), DataError)):
        with pytest.raises(error, match=r"\\x1b\[2J") as raised:
            list(read())
        assert str(raised.value).isprintable()
