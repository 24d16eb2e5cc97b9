"""Texts for the text cases: from the IMDB archive where one is given, else generated."""

import io
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.benchmark.data import MEDIAN_WORDS, review_lengths, reviews
from pipeline.benchmark.turns import Turns, Work
from pipeline.corpus.cleaning import clean_text
from pipeline.corpus.trees import read_imdb
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.settings import PrepareCorpusSettings
from pipeline.stage import Run, run_stage, stage_named

ARCHIVE = "reviews.tar.gz"
COPIES = (1, 4, 16)
FEW = 20
"""Documents to warm a side with."""


def prepare_archive(turns: Turns, work: Work) -> None:
    """An archive in IMDB's layout, of the first reviews of the one that is given or of generated ones."""
    write_archive(work.shared / ARCHIVE, enumerate(_texts(work, work.sizes.archive_documents)))


def prepare_reviews(turns: Turns, work: Work) -> None:
    """The reviews of the tokenizing cases, each set as text files and as a sealed corpus."""
    sizes = work.sizes
    texts = list(_texts(work, max(sizes.documents, sizes.subword_documents)))
    for name, n in (("word", sizes.documents), ("subword", sizes.subword_documents), ("few", FEW)):
        files = work.shared / name / "files"
        (files / "train").mkdir(parents=True)
        for number, text in enumerate(texts[:n]):
            (files / "train" / f"{number:06d}.txt").write_text(text, encoding="utf-8", newline="")
        settings = PrepareCorpusSettings(kind="folder", source=str(files), test_fraction=0.0)
        run = Run(name, Recipe(prepare_corpus=settings), work.shared / name)
        run_stage(run, stage_named("prepare_corpus"), Reporter())


def prepare_copies(turns: Turns, work: Work) -> None:
    """Archives of one, four and sixteen copies of the same reviews, every copy under new names."""
    texts = list(_texts(work, work.sizes.scale_documents))
    for copies in COPIES:
        write_archive(work.shared / f"{copies}.tar", enumerate(text for _ in range(copies) for text in texts))


def write_archive(path: Path, texts: Iterable[tuple[int, str]]) -> None:
    """A tar archive in IMDB's layout: a quarter each labelled for train and test, half unlabelled."""
    folders = ("train/pos", "train/unsup", "test/neg", "train/unsup", "train/neg", "train/unsup", "test/pos",
               "train/unsup")
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for number, text in texts:
            content = text.encode("utf-8")
            member = tarfile.TarInfo(f"aclImdb/{folders[number % len(folders)]}/{number}_0.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _texts(work: Work, n: int) -> Iterator[str]:
    """The first `n` reviews of the archive in the order in which it holds them, or generated ones."""
    if work.source is None:
        return iter(_generated(n))
    cleaned = (clean_text(document.text, Counter()) for document in read_imdb(work.source))
    return islice((text for text in cleaned if text is not None), n)


def _generated(n: int) -> list[str]:
    rng = np.random.default_rng(n)
    return reviews(review_lengths(n, MEDIAN_WORDS, rng), rng)
