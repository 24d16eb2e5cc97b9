"""This pipeline's side of the text cases: its stages, run as the command runs them."""

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pipeline.stages.numericalize_corpus
import pipeline.stages.prepare_corpus
import pipeline.stages.tokenize_corpus  # noqa: F401  # imported before the clock starts
from pipeline import machine
from pipeline.artifact import Artifact
from pipeline.benchmark.text_data import ARCHIVE
from pipeline.benchmark.turns import Turns, Work
from pipeline.machine import usable_cores
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.settings import (
    InputSettings,
    NumericalizeCorpusSettings,
    PrepareCorpusSettings,
    TokenizeCorpusSettings,
)
from pipeline.stage import Run, run_stage, stage_named
from pipeline.text.word import WordTokenizer


class Timed(NamedTuple):
    """What a stage made, how long it took, and the peak memory of its largest process."""

    artifact: Artifact
    seconds: float
    peak_mb: float


def archive(turns: Turns, work: Work) -> None:
    """The archive to a sealed corpus."""
    source = work.shared / ARCHIVE
    while True:
        shutil.rmtree(work.own / "data", ignore_errors=True)
        turns.wait()
        turns.stop(_documents(prepare(turns, source, work.own).artifact))


def prepare(turns: Turns, source: Path, home: Path) -> Timed:
    """Run the stage prepare_corpus on an archive of IMDB's layout."""
    settings = PrepareCorpusSettings(kind="imdb", source=str(source))
    return _run(turns, "prepare_corpus", Run("r", Recipe(prepare_corpus=settings), home))


def tokenize(turns: Turns, work: Work) -> None:
    """A corpus to sealed ids of word tokens; units are tokens."""
    _corpus_to_ids(turns, work, "word", TokenizeCorpusSettings(workers=usable_cores()), count_tokens=True)


def subword(turns: Turns, work: Work) -> None:
    """A corpus to sealed ids of subword pieces, their training included; units are documents."""
    settings = TokenizeCorpusSettings(tokenizer="subword", vocab_size=work.sizes.pieces, workers=usable_cores())
    _corpus_to_ids(turns, work, "subword", settings, count_tokens=False)


def _corpus_to_ids(
    turns: Turns, work: Work, name: str, settings: TokenizeCorpusSettings, *, count_tokens: bool
) -> None:
    few = TokenizeCorpusSettings(workers=usable_cores())
    to_ids(turns, _corpus(work, "few"), few, work.own / "few")
    home = work.own / "home"
    while True:
        shutil.rmtree(home, ignore_errors=True)
        turns.wait()
        tokens, _ = to_ids(turns, _corpus(work, name), settings, home)
        metrics = tokens.artifact.manifest.metrics
        turns.stop(sum(metrics["tokens"].values()) if count_tokens else metrics["documents"])


def to_ids(turns: Turns, corpus: Path, settings: TokenizeCorpusSettings, home: Path) -> list[Timed]:
    """Run tokenize_corpus and numericalize_corpus."""
    recipe = Recipe(
        inputs=InputSettings(corpus=str(corpus)), tokenize_corpus=settings,
        numericalize_corpus=NumericalizeCorpusSettings(),
    )
    run = Run("r", recipe, home)
    return [_run(turns, stage, run) for stage in ("tokenize_corpus", "numericalize_corpus")]


def copies(turns: Turns, work: Work) -> None:
    """Copies of the same reviews through three stages: seconds and peak memory of each; units are documents."""
    WordTokenizer().load()  # spaCy is imported
    while True:
        shutil.rmtree(work.own / "data", ignore_errors=True)
        turns.wait()
        made = [prepare(turns, work.shared / f"{work.parameters['copies']}.tar", work.own)]
        made += to_ids(turns, made[0].artifact.path, TokenizeCorpusSettings(workers=usable_cores()), work.own)
        turns.stop(_documents(made[0].artifact), [stage.seconds for stage in made], peaks_mb=[s.peak_mb for s in made])


def _corpus(work: Work, name: str) -> Path:
    return work.shared / name / "data" / name / "corpus"


def _documents(corpus: Artifact) -> int:
    return sum(corpus.manifest.metrics["documents"].values())


def _run(turns: Turns, stage: str, run: Run) -> Timed:
    turns.note_peak()
    started = time.perf_counter()
    made = run_stage(run, stage_named(stage), Reporter())
    seconds = time.perf_counter() - started
    turns.note_peak()
    workers = machine.peak_of_workers_mb() if stage == "tokenize_corpus" else 0.0
    return Timed(made, seconds, max(made.manifest.peak_memory_mb, workers))
