"""Readers for running text and for what needs no source: one plain text file, Human Numbers, a few sentences."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from num2words import num2words

from pipeline.corpus.documents import RawDocument
from pipeline.errors import InputError

DOCUMENT_BYTES = 2_000
"""Paragraphs are put together until a document has this many bytes."""
LONGEST_BYTES = 1 << 20
"""Text without blank lines is cut after a line, or a word, near this many bytes."""
HUMAN_NUMBERS_TRAIN_SHARE = 0.8
BOW_LANGUAGES = (
    ("train", "Spanish", "mi hermana come pan en el barco"),
    ("train", "English", "come with me to the big boat"),
    ("train", "Spanish", "no veo la red en el mar"),
    ("train", "English", "no one can see the bread on the boat"),
    ("valid", "Spanish", "mi hermana no come"),
    ("valid", "English", "come see the boat"),
    ("test", "Spanish", "no veo pan en la mar"),
    ("test", "English", "the red bread is on me"),
)
"""Split, language and sentence. "come", "no", "red" and "me" are words of both languages, or of the other one."""


def read_plain_text(path: Path) -> Iterator[RawDocument]:
    """Consecutive paragraphs (separated by blank lines) of one text file, put together to documents of 2,000 bytes.

    All are in split train and have no label; the split takes its validation text from the end of the file.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a text file.", "Use kind folder for split/label/*.txt.")
    with path.open("rb") as stream:
        if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise InputError(f"{path} is UTF-16.", "Save it as UTF-8.")
    for number, text in enumerate(_documents(path)):
        yield RawDocument(f"{number:07d}", "train", None, None, text)


def _documents(path: Path) -> Iterator[bytes]:
    pieces: list[bytes] = []
    size = 0
    for line in _lines(path):
        at_end = (size >= DOCUMENT_BYTES and not line.strip()) or size + len(line) > LONGEST_BYTES
        if at_end and pieces:
            yield b"".join(pieces)
            pieces, size = [], 0
        if pieces or line.strip():
            pieces.append(line)
            size += len(line)
    if pieces:
        yield b"".join(pieces)


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a file; one that is longer than LONGEST_BYTES is cut after a space."""
    with path.open("rb") as stream:
        rest = b""
        while piece := stream.readline(LONGEST_BYTES - len(rest)):
            piece, rest = rest + piece, b""
            if len(piece) >= LONGEST_BYTES and not piece.endswith(b"\n"):
                cut = piece.rfind(b" ", 0, -1) + 1 or len(piece) // 2
                while cut > 1 and piece[cut] & 0xC0 == 0x80:  # not inside a character
                    cut -= 1
                piece, rest = piece[:cut], piece[cut:]
            yield piece
        if rest:
            yield rest


def read_human_numbers() -> Iterator[RawDocument]:
    """The numbers 1 to 9,999 in English words, joined by full stops: one document to train, one to validate.

    fastai's Human Numbers, the notes' data, has 9,998 lines, 63,095 tokens and 30 types: 1 to 7,999 in its train
    file and 8,001 to 9,999 in its valid file. "Eight thousand" is in neither, so it is left out here too. The cut is
    the notes': the first 80 % of the tokens train.
    """
    words = (num2words(n) for n in range(1, 10_000) if n != 8000)
    numbers = (text.replace("-", " ").replace(",", "").replace(" and ", " ") for text in words)
    tokens = " . ".join(numbers).split(" ")
    cut = int(len(tokens) * HUMAN_NUMBERS_TRAIN_SHARE)
    yield RawDocument("train", "train", None, None, " ".join(tokens[:cut]))
    yield RawDocument("valid", "valid", None, None, " ".join(tokens[cut:]))


def read_bow_languages() -> Iterator[RawDocument]:
    """Four sentences to train and two to test, English or Spanish, after PyTorch's bag-of-words tutorial.

    The sentences are our own. Two more are there to validate, which the tutorial does not do.
    """
    for number, (split, label, text) in enumerate(BOW_LANGUAGES):
        yield RawDocument(str(number), split, label, None, text)
