"""This pipeline's side of the training cases: the stages themselves, measured from their progress reports.

A training stage tells its reporter of every step. The reporter here waits for its turn and reads the clock at that
point, so that what is measured is the stage as it runs, whatever its insides are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pipeline.stages.finetune_lm
import pipeline.stages.train_classifier  # noqa: F401  # imported before the clock starts
from pipeline.artifact import open_artifact
from pipeline.benchmark import flop
from pipeline.benchmark.turns import Turns, Work
from pipeline.model.architecture import Architecture
from pipeline.progress import Reporter, Task
from pipeline.recipe import Recipe
from pipeline.settings import InputSettings, RunSettings
from pipeline.stage import Run, run_stage, stage_named
from pipeline.text.ids import IdStore
from pipeline.training.device import resolve_device
from pipeline.training.loaders import LanguageModelLoader
from pipeline.training_settings import FinetuneLMSettings, Phase, TrainClassifierSettings

NO_CHECKPOINTS: dict[str, Any] = {"checkpoint_steps": None, "checkpoint_minutes": None}
"""Inside an epoch; the end of an epoch, which is not measured, has one all the same."""


class _Measured(Task):
    """The steps of one epoch."""

    def __init__(self, reporter: Reporter, title: str, total: int | None, step: Callable[[bool], None]) -> None:
        super().__init__(reporter, title, total, "steps")
        self._step = step

    def advance(self, n: int = 1, note: str = "") -> None:
        """After each step; 0 at the beginning of an epoch."""
        self._done += n
        if n:
            self._step(self._done == self._total)


class _Measuring(Reporter):
    """A reporter that calls `begin` before every epoch and `step` after every step, telling if it was the last."""

    def __init__(self, begin: Callable[[], None], step: Callable[[bool], None]) -> None:
        super().__init__()
        self._begin, self._step = begin, step

    @property
    def interactive(self) -> bool:
        """True, so that every step is reported."""
        return True

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        """Progress; of training where the unit is steps."""
        if unit == "steps":
            self._begin()
            yield _Measured(self, title, total, self._step)
        else:
            yield Task(self, title, total, unit)


def loader(turns: Turns, work: Work) -> None:
    """An epoch of language-model batches; units are tokens."""
    store, sizes = IdStore.open(open_artifact(work.shared / "ids", "ids")), work.sizes
    batches = LanguageModelLoader(
        store, store.documents("train"), bs=sizes.lm_bs, seq_len=sizes.lm_seq_len, seed=RunSettings().seed
    )
    while True:
        if batches.epoch:
            turns.wait()
        turns.stop(sum(x.numel() for x, _ in batches))
        batches.epoch += 1


def language_model(turns: Turns, work: Work) -> None:
    """Steps of the stage finetune_lm, from scratch; units are tokens."""
    sizes = work.sizes
    emb_sz, n_hid, n_layers = sizes.lstm
    settings = FinetuneLMSettings(
        emb_sz=emb_sz, n_hid=n_hid, n_layers=n_layers, bs=sizes.lm_bs, seq_len=sizes.lm_seq_len,
        phases=(Phase(name="benchmark", lr=2e-3),), **NO_CHECKPOINTS,
    )
    vocabulary_size = sizes.vocabularies[work.parameters["vocabulary"]]
    architecture = Architecture.from_settings(settings, vocabulary_size)
    turns.tell(
        flop_per_unit=flop.of_language_model_token(architecture), precision=resolve_device(RunSettings()).precision
    )
    done = 0

    def step(last: bool) -> None:
        nonlocal done
        done += 1
        if done > sizes.lm_warm_steps:
            turns.stop(sizes.lm_bs * sizes.lm_seq_len)
        if done >= sizes.lm_warm_steps:
            turns.wait()

    inputs = InputSettings(ids=str(work.shared / "ids"))
    _train(work, "finetune_lm", Recipe(inputs=inputs, finetune_lm=settings), _Measuring(lambda: None, step))


def classifier(turns: Turns, work: Work) -> None:
    """Epochs of the stage train_classifier, all layers; units are documents."""
    sizes, shared = work.sizes, work.shared
    settings = TrainClassifierSettings(
        bs=sizes.classifier_bs, phases=(Phase(name="benchmark", epochs=sizes.repeats + 2, lr=1e-3),), **NO_CHECKPOINTS
    )
    architecture = Architecture.load(shared / "lm" / "architecture.json")
    store = IdStore.open(open_artifact(shared / "ids", "ids"))
    lengths = store.n_tokens[store.documents("train")]
    turns.tell(
        flop_per_unit=flop.of_documents(architecture, lengths, settings.max_len) / len(lengths),
        precision=resolve_device(RunSettings()).precision,
    )
    epochs = 0

    def begin() -> None:
        nonlocal epochs
        epochs += 1
        if epochs > 1:
            turns.wait()

    def step(last: bool) -> None:
        if last and epochs > 1:
            turns.stop(len(lengths))

    inputs = InputSettings(ids=str(shared / "ids"), lm=str(shared / "lm"))
    _train(work, "train_classifier", Recipe(inputs=inputs, train_classifier=settings), _Measuring(begin, step))


def _train(work: Work, stage: str, recipe: Recipe, reporter: Reporter) -> None:
    run_stage(Run("r", recipe, work.own), stage_named(stage), reporter)
    raise RuntimeError(f"{stage} ended before its last repeat")

