"""Phases: what is trained, what the log says, the best epoch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.learner import Callback
from tiny_training import CLASSIFIER, FINGERPRINT, LM, classifier_task, train

from pipeline.errors import UsageError
from pipeline.model import lstm
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.progress import Reporter
from pipeline.training.checkpoints import CheckpointStore
from pipeline.training.device import onednn_has_bf16
from pipeline.training.metrics import bits_per_character, perplexity
from pipeline.training.phases import PhaseLog, seed_weights
from pipeline.training.resume import BestEpoch
from pipeline.training_settings import Phase


def test_the_first_phase_moves_only_the_last_group(tmp_path: Path) -> None:
    frozen = LM.model_copy(update={"phases": LM.phases[:1]})
    seed_weights(3)
    start = build_language_model(Architecture.from_settings(frozen, 32), frozen).state_dict()
    weights = train(tmp_path, frozen).weights
    moved = {name for name in weights if not torch.equal(weights[name], start[name])}
    assert moved == {"0.encoder.weight", "0.encoder_dp.emb.weight", "1.decoder.weight", "1.decoder.bias"}


def test_it_learns_and_its_log_says_what_a_batch_log_needs(tmp_path: Path) -> None:
    result = train(tmp_path)
    history, log = result.trained.history, result.log
    assert [r["epoch"] for r in history] == [1, 2, 3]
    assert [r["phase"] for r in history] == ["frozen", "all", "all"]
    assert history[-1]["valid_loss"] < history[0]["valid_loss"]
    line = next(line for line in log.splitlines() if "step 5/15" in line)
    for part in ("finetune_lm frozen 1/1", "loss ", "lr ", "tokens/s", " left"):
        assert part in line
    assert "\r" not in log


def test_the_log_says_where_torch_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lstm, "torch_learns", lambda n_in, n_hid: n_hid != LM.n_hid)
    told = f"finetune_lm: LSTM layers of {LM.n_hid} units learn by this pipeline's own kernel"
    in_bf16 = train(tmp_path / "bf16", precision="bf16")
    assert in_bf16.log.startswith(told) == onednn_has_bf16()  # elsewhere torch's own kernels run, which are right
    assert in_bf16.trained.history[-1]["valid_loss"] < in_bf16.trained.history[0]["valid_loss"]
    assert told not in train(tmp_path / "fp32").log


def test_no_tensor_is_kept_for_every_step(tmp_path: Path) -> None:
    class Watch(Callback):
        order = PhaseLog.order + 1
        kept = 0

        def after_batch(self) -> None:
            Watch.kept = max(Watch.kept, len(self.learn.recorder.losses))

    history = train(tmp_path, callbacks=(Watch(),)).trained.history
    assert Watch.kept == 0
    assert history[0]["train_loss"] > 0


def test_more_layer_groups_than_there_are(tmp_path: Path) -> None:
    settings = LM.model_copy(update={"phases": (Phase(name="odd", lr=1e-2, train_last=7),)})
    with pytest.raises(UsageError, match=r"trains the last 7 layer groups; there are 3"):
        train(tmp_path, settings)


def test_best_epoch_keeps_the_highest_accuracy_then_the_lower_loss(tmp_path: Path) -> None:
    task = classifier_task(CLASSIFIER, ())
    best = BestEpoch(CheckpointStore(tmp_path, FINGERPRINT, keep=3, reporter=Reporter(), prefix="best"), task)
    for epoch, (accuracy, loss) in enumerate(((0.5, 1.0), (0.7, 0.9), (0.7, 0.8), (0.7, 0.85), (0.6, 0.1)), 1):
        best.offer({"epoch": epoch, "accuracy": accuracy, "valid_loss": loss})
    assert best.record == {"epoch": 3, "accuracy": 0.7, "valid_loss": 0.8}
    assert best.folder.name == "best-00000003"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-00000001", "best-00000002", "best-00000003"]


def test_bits_per_character_and_perplexity() -> None:
    assert perplexity(np.log(8)) == pytest.approx(8)
    # 10 tokens of 2 bits each spell 40 characters
    assert bits_per_character(2 * np.log(2), tokens=10, characters=40) == pytest.approx(0.5)
