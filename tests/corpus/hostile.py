"""Making hostile sources, and measuring what reading them costs and leaves behind."""

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
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


MEASURE = """
import json, re, sys
from pathlib import Path
import pipeline.corpus.trees, pipeline.corpus.rotten_tomatoes
from pipeline.errors import PipelineError
from pipeline.settings import PrepareCorpusSettings
if sys.argv[1] == "table":
    import pipeline.corpus.tables
from pipeline.corpus.readers import read_documents
def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
# Not getrusage: its maximum begins with that of the parent process. VmHWM is of this program alone.
before = status("VmHWM")
documents = 0
said = ""
try:
    for _ in read_documents(PrepareCorpusSettings(kind=sys.argv[1], label_column=None), Path(sys.argv[2])):
        documents += 1
except PipelineError as error:
    said = f"{error.exit_code:d} {error}"
peak = status("VmHWM") - before
print(json.dumps({"peak_mb": peak, "said": said, "documents": documents}))
"""


class Cost:
    """What reading a source in a process of its own took."""

    def __init__(self, kind: str, path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, kind, str(path)], cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        self.peak_mb: float = result["peak_mb"]
        self.said: str = result["said"]
        self.documents: int = result["documents"]
        print(f"{path.name}: {path.stat().st_size:,} bytes, peak {self.peak_mb:.1f} MB, {self.documents} documents")


def with_zeros(entries: bytes, packer: str, zero_bytes: int) -> bytes:
    """`entries` and then zeros, packed; made of one packed piece of 16 MB that is repeated."""
    import bz2
    import gzip
    import lzma

    pack = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[packer]
    piece = 16 * 2**20
    return pack(entries) + pack(bytes(piece)) * (zero_bytes // piece)
