"""Text files of labelled lines: the 3,000 sentences of UCI, and the surnames of PyTorch's tutorial.

Their publishers tell no checksum of the archives, so each file inside is checked. The sums are those of copies that
others unpacked; what else an archive holds does not matter.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.corpus.documents import RawDocument
from pipeline.corpus.trees import walk_folder
from pipeline.corpus.zips import read_zip
from pipeline.errors import InputError

MAX_FILE_BYTES = 2**20
"""The longest file has 85,605; what is longer than this is cut here and so fails its checksum."""


@dataclass(frozen=True)
class PublishedFiles:
    """Files known by name and SHA-256, in whatever folder of an archive they lie."""

    title: str
    sha256: Mapping[str, str]

    def read(self, path: Path) -> dict[str, bytes]:
        """Name and content of every file, from the zip archive or the folder `path`.

        Raises InputError for an archive that is damaged, a file that is missing, no regular file, or another one.
        """
        if path.is_dir():
            found = dict(walk_folder(path, self._wanted))
        else:
            try:
                found = read_zip(path, self._wanted, MAX_FILE_BYTES)
            except zipfile.BadZipFile as error:
                raise self._refused(f"{path} is not the archive of {self.title}: {error}.") from error
        for name, expected in self.sha256.items():
            if name not in found:
                raise self._refused(f"{path} holds no {name}.")
            sha256 = hashlib.sha256(found[name]).hexdigest()
            if sha256 != expected:
                raise self._refused(f"{name} in {path} has SHA-256 {sha256}, expected {expected}.")
        return {name: found[name] for name in self.sha256}

    def mismatch(self, path: Path) -> str:
        """In what the archive or folder `path` differs from the published one; empty if it does not."""
        try:
            self.read(path)
        except InputError as error:
            return error.what
        return ""

    def _wanted(self, path: str) -> str | None:
        name = PurePosixPath(path).name
        return name if name in self.sha256 else None

    def _refused(self, what: str) -> InputError:
        return InputError(what, f"Give the archive of {self.title}, or the folder it unpacks to, with --source.")


SENTENCES = PublishedFiles("the sentiment labelled sentences", {
    "amazon_cells_labelled.txt": "47003fc0a0d4840b00e96e715b6189bad09e7443a3da41c4cbe12ffc79f86ae3",
    "imdb_labelled.txt": "c662b9360c1652babb990d164835af12aa105db7991f1fdb19038115f0e93de8",
    "yelp_labelled.txt": "b565b1eeb864d76842588c3a256731b08bcdd9faf6de507bfe211a96f8b81912",
})
NAMES = PublishedFiles("names by language", {
    "Arabic.txt": "6f424a8dbe51cbbbabab7a57d38b617210125e4e3991f3c657cb79b8f104bafc",
    "Chinese.txt": "49263ef55a8cb1740e841d65cad8214b2f9b5b869bc534c811746422496fa91e",
    "Czech.txt": "145bbbd6d0816578f03388e92c264d39ef1c60df920b081d371fa5c5cc055a8e",
    "Dutch.txt": "924f32b635170eae561f84538632138fc07d4c8bbd70ba3fb980de1ecc4d2af3",
    "English.txt": "9cca037066d3d5989e24bc01801416162de506b5e28e15b7c092a47905d29bf2",
    "French.txt": "81e65b36c60ed5b89a17422f6edcadbb89546f38ad69e960e64e7ba682012a95",
    "German.txt": "7449cd590b97a733e18d613a4155decd77ec35dc5f8aadd7a82204dce4f051db",
    "Greek.txt": "3555b5186de7f401e6d991b088e9e644ca3099116477818c25ab5793801389e6",
    "Irish.txt": "cf8c7013256252a88d2503127b87282a11f21b2ff6db1bded68834c19a1ec058",
    "Italian.txt": "f88414c27d0606a11a678b4859277828c2565d6cc4d9ee932deef6e94f3b35e4",
    "Japanese.txt": "e0e717e114fec3e7eade4d9dabe0067c475f43147e36a22b47902ee76ad9e67f",
    "Korean.txt": "cd54221ccb362a6cba4c78828838cf3268a0e59744767a37cf6ec4b74036b136",
    "Polish.txt": "45bab898af2f60ed3a728bbf6980e28821011a7caa53227553b5785903a40826",
    "Portuguese.txt": "50a8735f41f4f73757c8ce5b16cb0275cd86b2b214bcbc8c9805f508cb131c53",
    "Russian.txt": "43b3e64ce351f77f1ac9e0cdf7566012d127f4371875fd25208845b5c9d6f7c3",
    "Scottish.txt": "78d0252711d87d948ea86fe34826c51d2d794a8e52d15b5d6f7b6244d45d62dd",
    "Spanish.txt": "1bcb462ed3316756a85781d68232bddae04498fdddd5d9219c53fd1fbdeba7a7",
    "Vietnamese.txt": "f3f9e4164ab47601178a6e45b216464a64122f49d05541f24bf18a757253281d",
})
_SENTIMENTS = {"0": "negative", "1": "positive"}


def read_sentences(path: Path) -> Iterator[RawDocument]:
    """1,000 sentences each of Amazon, IMDB and Yelp reviews, half of them positive (Kotzias et al. 2015).

    `path` is the zip archive or its folder. The ids are file and line, as in yelp/0. Raises InputError if a file is not
    the published one.
    """
    for file, content in SENTENCES.read(path).items():
        for number, line in enumerate(_lines(content)):
            text, _, label = line.rpartition("\t")
            yield RawDocument(f"{file.partition('_')[0]}/{number}", "train", _SENTIMENTS[label], None, text.strip())


def read_names(path: Path) -> Iterator[RawDocument]:
    """20,074 surnames; the label is their language, the name of their file.

    `path` is the zip archive of the tutorial or a folder with its names. The ids are language and line, as in Czech/0.
    Space around a name is left out: only some languages have it. Raises InputError if a file is not the published one.
    """
    for file, content in NAMES.read(path).items():
        language = file.removesuffix(".txt")
        for number, line in enumerate(_lines(content)):
            yield RawDocument(f"{language}/{number}", "train", language, None, line.strip())


def _lines(content: bytes) -> list[str]:
    """Lines end in a line feed and nothing else; str.splitlines would also cut at U+0085 and its like."""
    return content.decode().removesuffix("\n").split("\n")
