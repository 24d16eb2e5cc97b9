"""Making hostile sources, and measuring what reading them costs and leaves behind."""

import hashlib
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.warm import Warm

from pipeline.corpus.readers import parts_of
from pipeline.corpus.tables import read_table
from pipeline.errors import DataError, InputError, PipelineError
from pipeline.machine import peak_memory_mb
from pipeline.settings import PrepareCorpusSettings

END = bytes(1024)
REVIEW = "aclImdb/train/pos/0_9.txt"


def entry(
    name: str = REVIEW, content: bytes = b"a fine film", kind: bytes = tarfile.REGTYPE, *, size: int | None = None,
    pax: dict[str, str] | None = None, link: str = "",
) -> bytes:
    """One tar entry; `size` is what its header claims, whatever it holds."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    member.size = len(content) if size is None else size
    head = b""
    if pax is not None:
        body = b"".join(pax_record(key, value) for key, value in pax.items())
        head = entry("pax", body, tarfile.XHDTYPE)
    return head + member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512)


def pax_record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode("utf-8", "surrogateescape")
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


def good_reviews(n: int = 6) -> bytes:
    """Entries of `n` reviews of each folder of the IMDB layout."""
    folders = ("train/pos", "train/neg", "test/pos", "test/neg")
    return b"".join(
        entry(f"aclImdb/{folder}/{i}_1.txt", f"film {i} of {folder}".encode()) for folder in folders for i in range(n)
    )


def snapshot(*folders: Path, without: Path | None = None) -> dict[str, tuple[int, int, str]]:
    """Mode, time stamp and content of everything below `folders`, aside from `without`."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if without is not None and path.is_relative_to(without):
                continue
            state = path.lstat()
            regular = path.is_file() and not path.is_symlink()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if regular else ""
            found[str(path)] = (state.st_mode, state.st_mtime_ns if regular else 0, content)
    return found


def read_and_measure(argv: list[str]) -> None:
    """Read the source `argv[1]` of the kind `argv[0]`; print what it cost, as JSON. Runs in a process of its own.

    What the process had when it was forked does not count: its peak begins there.
    """
    before, documents, said = peak_memory_mb(), 0, ""
    try:
        (part,) = parts_of(PrepareCorpusSettings(kind=argv[0], label_column=None), Path(argv[1]))
        for _ in part():
            documents += 1
    except PipelineError as error:
        said = f"{error.exit_code:d} {error}"
    print(json.dumps({"peak_mb": peak_memory_mb() - before, "said": said, "documents": documents}))


def damage_and_read(argv: list[str]) -> None:
    """Flip bits of the table `argv[0]` or cut it, 200 times, and read it.

    Prints how often it was read, and how often refused by name.
    """
    path = Path(argv[0])
    whole = path.read_bytes()
    chance = random.Random(8)
    said = {"read": 0, "refused": 0}
    for number in range(200):
        content = bytearray(whole)
        if number % 4 == 3:
            del content[chance.randrange(len(content)):]
        else:
            for _ in range(chance.choice((1, 2, 8))):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            for row in read_table(path, PrepareCorpusSettings(kind="table")):
                assert isinstance(row.text, str | bytes), row
            said["read"] += 1
        except (InputError, DataError) as error:
            said["refused"] += path.name in str(error)
    print(json.dumps(said))


JOBS = {"measure": read_and_measure, "damage": damage_and_read}


def job(argv: list[str]) -> None:
    """One of `JOBS`, for a forked process."""
    JOBS[argv[0]](argv[1:])


class Apart:
    """Does jobs with hostile sources in processes of their own, forked from one that has imported the readers."""

    def __init__(self, warm: Warm, folder: Path) -> None:
        self._warm, self._folder = warm, folder
        self._number = 0

    def __call__(self, *argv: str) -> dict[str, Any]:
        """What a job printed; AssertionError if it crashed."""
        self._number += 1
        child = self._warm.start(argv, self._folder, self._folder / f"{self._number}.txt")
        assert child.wait(120) == 0, child.output()
        return json.loads(child.output())

    def read(self, kind: str, path: Path) -> "Cost":
        """What reading a source takes."""
        cost = Cost(**self("measure", kind, str(path)))
        print(f"{path.name}: {path.stat().st_size:,} bytes, peak {cost.peak_mb:.1f} MB, {cost.documents} documents")
        return cost


@dataclass(frozen=True)
class Cost:
    """What reading a source took, and what was said in the end."""

    peak_mb: float
    said: str
    documents: int


def with_zeros(entries: bytes, packer: str, zero_bytes: int) -> bytes:
    """`entries` and then zeros, packed; made of one packed piece of 16 MB that is repeated."""
    import bz2
    import gzip
    import lzma

    pack = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[packer]
    piece = 16 * 2**20
    return pack(entries) + pack(bytes(piece)) * (zero_bytes // piece)
