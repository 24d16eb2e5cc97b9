"""Phases: checkpoints, restart, divergence, the best epoch."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documents import counting_documents
from fastai.learner import Callback
from fastai.losses import CrossEntropyLossFlat
from fastai.text.models.awdlstm import awd_lstm_lm_split

from pipeline.errors import DivergedError, UsageError
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.weights import load_language_model, save_language_model
from pipeline.progress import Reporter
from pipeline.settings import FinetuneLMSettings, Phase
from pipeline.training.device import Device
from pipeline.training.history import Record
from pipeline.training.loaders import LanguageModelLoader
from pipeline.training.metrics import TokenAccuracy, TokenLoss, bits_per_character, perplexity
from pipeline.training.phases import BestEpoch, Task, _PhaseLog, seed_weights, train_phases
from pipeline.training.precision import MixedPrecision

SETTINGS = FinetuneLMSettings(
    emb_sz=16, n_hid=24, n_layers=2, bs=4, seq_len=10, clip=0.25, log_every=5,
    phases=(Phase(name="frozen", lr=2e-2, train_last=1), Phase(name="all", epochs=2, lr=1e-2)),
)


class Killed(Exception):
    """Stands for a kill: nothing in the pipeline catches it."""


class KillAt(Callback):
    """Raise at one step of one epoch."""

    def __init__(self, step: int) -> None:
        self.step, self.seen = step, 0

    def after_batch(self) -> None:
        if self.training:
            self.seen += 1
            if self.seen == self.step:
                raise Killed("now")


def train(
    resume: Path, settings: FinetuneLMSettings = SETTINGS, callbacks: tuple[Callback, ...] = (), precision: str = "fp32"
) -> tuple[dict[str, torch.Tensor], list[Record], str]:
    documents = counting_documents(12, 60)
    seed_weights(3)
    model = build_language_model(Architecture.from_settings(settings, 32), settings)
    train_loader = LanguageModelLoader(documents, np.arange(10), bs=settings.bs, seq_len=settings.seq_len, seed=3)
    valid_loader = LanguageModelLoader(documents, np.arange(10, 12), bs=4, seq_len=10)
    task = Task(
        name="finetune_lm", model=model, splitter=awd_lstm_lm_split, loss=CrossEntropyLossFlat(), train=train_loader,
        valid=valid_loader, metrics=[TokenLoss(), TokenAccuracy()], unit="tokens",
        units=train_loader.predicted_tokens,
        summarize=lambda f: {"valid_loss": f["token_loss"], "accuracy": f["token_accuracy"]},
        save=lambda folder: save_language_model(model, folder), load=lambda folder: load_language_model(model, folder),
        callbacks=callbacks,
    )
    log = io.StringIO()
    device = Device(torch.device("cpu"), precision, precision)
    history, _ = train_phases(
        task, settings, settings.phases, device=device, seed=3, resume=resume, reporter=Reporter(log)
    )
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, history, log.getvalue()


def without_times(history: list[Record]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if not k.endswith("_s")} for r in history]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_killed_in_any_phase_ends_bit_equal(tmp_path: Path, precision: str) -> None:
    weights, history, _ = train(tmp_path / "unbroken", precision=precision)
    steps_per_epoch = 15
    for step in (1, steps_per_epoch, steps_per_epoch + 2, 3 * steps_per_epoch):
        resume = tmp_path / f"killed-{step}"
        with pytest.raises(Killed):
            train(resume, callbacks=(KillAt(step),), precision=precision)
        again, again_history, log = train(resume, precision=precision)
        assert ("phase frozen is done" in log) == (step > steps_per_epoch)
        assert without_times(again_history) == without_times(history)
        assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_first_phase_moves_only_the_last_group(tmp_path: Path) -> None:
    frozen = SETTINGS.model_copy(update={"phases": SETTINGS.phases[:1]})
    seed_weights(3)
    start = build_language_model(Architecture.from_settings(frozen, 32), frozen).state_dict()
    weights, _, _ = train(tmp_path, frozen)
    moved = {name for name in weights if not torch.equal(weights[name], start[name])}
    assert moved == {"0.encoder.weight", "0.encoder_dp.emb.weight", "1.decoder.weight", "1.decoder.bias"}


def test_it_learns_and_its_log_says_what_a_batch_log_needs(tmp_path: Path) -> None:
    _, history, log = train(tmp_path)
    assert [r["epoch"] for r in history] == [1, 2, 3]
    assert [r["phase"] for r in history] == ["frozen", "all", "all"]
    assert history[-1]["valid_loss"] < history[0]["valid_loss"]
    line = next(line for line in log.splitlines() if "step 5/15" in line)
    for part in ("finetune_lm frozen 1/1", "loss ", "lr ", "tokens/s", " left"):
        assert part in line
    assert "\r" not in log


def test_no_tensor_is_kept_for_every_step(tmp_path: Path) -> None:
    class Watch(Callback):
        order = _PhaseLog.order + 1
        kept = 0

        def after_batch(self) -> None:
            Watch.kept = max(Watch.kept, len(self.learn.recorder.losses))

    _, history, _ = train(tmp_path, callbacks=(Watch(),))
    assert Watch.kept == 0
    assert history[0]["train_loss"] > 0


def test_a_loss_that_is_no_number_ends_in_a_named_error(tmp_path: Path) -> None:
    class Poison(Callback):
        order = MixedPrecision.order

        def after_pred(self) -> None:
            self.learn.pred = self.pred * float("nan")

    with pytest.raises(DivergedError, match=r"loss became nan in phase frozen, epoch 1\..*finetune_lm\.clip"):
        train(tmp_path, callbacks=(Poison(),))


def test_more_layer_groups_than_there_are(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"phases": (Phase(name="odd", lr=1e-2, train_last=7),)})
    with pytest.raises(UsageError, match=r"trains the last 7 layer groups; there are 3"):
        train(tmp_path, settings)


def test_best_epoch_keeps_the_highest_accuracy_then_the_lower_loss(tmp_path: Path) -> None:
    number = itertools.count()
    best = BestEpoch(tmp_path / "best", lambda folder: (folder / "weights").write_text(str(next(number))))
    for accuracy, loss in ((0.5, 1.0), (0.7, 0.9), (0.7, 0.8), (0.7, 0.85), (0.6, 0.1)):
        best.offer({"accuracy": accuracy, "valid_loss": loss})
    assert best.record == {"accuracy": 0.7, "valid_loss": 0.8}
    assert (tmp_path / "best" / "weights").read_text() == "2"


def test_bits_per_character_and_perplexity() -> None:
    assert perplexity(np.log(8)) == pytest.approx(8)
    # 10 tokens of 2 bits each spell 40 characters
    assert bits_per_character(2 * np.log(2), tokens=10, characters=40) == pytest.approx(0.5)
