"""The fast way to read an ordinary tar header says what `tarfile` says, or nothing."""

import tarfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus.archive import _ordinary

ENCODING, ERRORS = "utf-8", "surrogateescape"
names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=30).filter(
    lambda name: not name.endswith("/")
)


def block(name: str, size: int = 7, **fields: object) -> bytes:
    """The header block of a regular file."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime = size, 1_300_000_000
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.USTAR_FORMAT, ENCODING, ERRORS)


def test_a_plain_file_is_ordinary() -> None:
    long = "/".join(["folder" * 5] * 4) + "/0_9.txt"
    for name, size in (("aclImdb/train/pos/0_9.txt", 806), ("é.txt", 0), (long, 8**11 - 1)):
        found = _ordinary(block(name, size, uid=8**7 - 1, uname="reader"))
        assert found == (name, tarfile.REGTYPE, size)


def test_what_is_not_plain_is_left_to_tarfile() -> None:
    for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.AREGTYPE, b"S"):
        assert _ordinary(block("a", type=kind)) is None
    member = tarfile.TarInfo("big")
    member.size = 8**11
    assert _ordinary(member.tobuf(tarfile.GNU_FORMAT, ENCODING, ERRORS)) is None
    assert _ordinary(bytes(512)) is None
    damaged = bytearray(block("a"))
    damaged[0] ^= 1
    assert _ordinary(bytes(damaged)) is None


@given(name=names, size=st.integers(0, 8**11 - 1), changes=st.dictionaries(st.integers(0, 511), st.integers(0, 255)))
@settings(max_examples=300)
def test_whatever_it_says_tarfile_says(name: str, size: int, changes: dict[int, int]) -> None:
    header = bytearray(block(name, size))
    for at, byte in changes.items():
        header[at] = byte
    content = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    header[148:156] = b"%06o\0 " % content  # else hardly any change would get past the checksum
    found = _ordinary(bytes(header))
    if found is not None:
        expected = tarfile.TarInfo.frombuf(bytes(header), ENCODING, ERRORS)
        assert found == (expected.name, expected.type, expected.size)


def test_all_headers_of_the_imdb_archive(shared_data: Path) -> None:
    with tarfile.open(shared_data / "aclImdb_v1.tar.gz", "r|gz") as archive:
        members = [member for member, _ in zip(archive, range(2_000), strict=False) if member.isreg()]
    assert len(members) > 1_000
    for member in members:
        header = member.tobuf(tarfile.USTAR_FORMAT, ENCODING, ERRORS)
        assert _ordinary(header) == (member.name, member.type, member.size)
