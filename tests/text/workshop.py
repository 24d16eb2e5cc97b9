"""A run on a small corpus that a test gives row by row, made through the real stages."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifact import Artifact, Manifest, hash_folder, seal
from pipeline.attempt import open_partial
from pipeline.progress import Reporter
from pipeline.provenance import installed_versions, now
from pipeline.recipe import Recipe
from pipeline.settings import InputSettings, NumericalizeCorpusSettings, TokenizeCorpusSettings
from pipeline.stage import Run, run_stage, stage_named

Row = tuple[str, str | None, str]
"""Split, label, text."""


def seal_folder(target: Path, slot: str, identity: dict[str, str], write: Callable[[Path], None]) -> Artifact:
    """A sealed artifact with whatever `write` puts into it."""
    work, _ = open_partial(target, f"{slot}-for-tests")
    write(work)
    fingerprint = hash_folder(work)
    return seal(
        target,
        Manifest(
            slot=slot, stage="test", code_version=1, fingerprint=fingerprint, settings={}, inputs={}, source=None,
            identity=identity, files={}, versions=installed_versions(), git_commit=None, git_dirty=None, host="test",
            job_id=None, device=None, precision=None, created=now(), wall_s=0.0, peak_memory_mb=0.0, metrics={},
        ),
    )


class Workshop:
    """One run whose corpus is given row by row."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = io.StringIO()

    def corpus(self, rows: Sequence[Row], row_group_size: int = 100) -> None:
        """Seal `rows`, which must be in the order train, unlabelled, valid, test, as the run's corpus."""
        columns = {
            "doc_id": pa.array([f"d{i}" for i in range(len(rows))], pa.string()),
            "split": pa.array([row[0] for row in rows], pa.string()),
            "label": pa.array([row[1] for row in rows], pa.string()),
            "group": pa.nulls(len(rows), pa.string()),
            "n_chars": pa.array([len(row[2]) for row in rows], pa.int32()),
            "text": pa.array([row[2] for row in rows], pa.string()),
        }
        labels = sorted({row[1] for row in rows if row[0] == "train" and row[1] is not None})

        def write(work: Path) -> None:
            pq.write_table(pa.table(columns), work / "documents.parquet", row_group_size=row_group_size)
            (work / "labels.json").write_text(json.dumps(labels) + "\n", encoding="utf-8")

        seal_folder(self.home / "data" / "r" / "corpus", "corpus", {}, write)

    def _run(self, stage: str, recipe: Recipe, force: bool) -> Artifact:
        return run_stage(Run("r", recipe, self.home), stage_named(stage), Reporter(self.log), force)

    def tokenize(self, *, force: bool = False, start_lm: Path | None = None, **settings: object) -> Artifact:
        """Run tokenize_corpus; one worker unless said otherwise."""
        section = TokenizeCorpusSettings.model_validate({"workers": 1} | settings)
        inputs = InputSettings(start_lm=str(start_lm) if start_lm else None)
        return self._run("tokenize_corpus", Recipe(tokenize_corpus=section, inputs=inputs), force)

    def numericalize(self, *, force: bool = False, start_lm: Path | None = None, **settings: object) -> Artifact:
        """Run numericalize_corpus."""
        section = NumericalizeCorpusSettings.model_validate(settings)
        inputs = InputSettings(start_lm=str(start_lm) if start_lm else None)
        return self._run("numericalize_corpus", Recipe(numericalize_corpus=section, inputs=inputs), force)
