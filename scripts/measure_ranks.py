"""What several processes spend on adding their gradients, for a language model of random weights; prints JSON.

    torchrun --nproc-per-node 2 -- scripts/measure_ranks.py --rows 8000 --steps 20

Seconds are medians over the steps of rank 0. What one process needs for such a step, of as many rows (--bs) as all have
together, the script says without torchrun.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from fastai.learner import Callback
from fastai.text.models.awdlstm import awd_lstm_lm_split
from numpy.typing import NDArray
from torch import Tensor

from pipeline import ranks
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.decoder_loss import DecoderLoss
from pipeline.progress import Reporter
from pipeline.settings import RunSettings
from pipeline.training.device import keep_freed_memory, resolve_device
from pipeline.training.group import Group
from pipeline.training.loaders import LanguageModelLoader
from pipeline.training.metrics import TokenAccuracy, TokenLoss
from pipeline.training.phases import seed_weights, train_phases
from pipeline.training.task import Task
from pipeline.training_settings import FinetuneLMSettings, Phase

FIRST = 2
"""Steps that are not counted: memory is being asked for."""


@dataclass
class Text:
    """One document of random ids."""

    ids: NDArray[np.uint16]
    offsets: NDArray[np.int64]


@dataclass
class Times:
    """Bytes and seconds of every sum over the processes."""

    sums: list[tuple[int, float]] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


class Timed(Group):
    """A group whose sums are timed."""

    def __init__(self, times: Times) -> None:
        super().__init__(ranks.join(), limit_s=600.0)
        self._times = times

    def add(self, tensor: Tensor) -> None:
        """Sum and note."""
        started = time.perf_counter()
        super().add(tensor)
        if self.size > 1:
            self._times.sums.append((tensor.nbytes, time.perf_counter() - started))


class StepTimes(Callback):
    """The seconds of every training batch."""

    order = 100
    run_valid = False

    def __init__(self, times: Times) -> None:
        self.times = times

    def before_train(self) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def after_batch(self) -> None:
        """Read it."""
        now = time.perf_counter()
        self.times.steps.append(now - self.started)
        self.started = now


def main() -> None:
    """Train a few steps and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"rows": 8000, "emb": 400, "hid": 1152, "layers": 3, "bs": 16, "seq": 72, "steps": 12}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    times = Times()
    group = Timed(times)
    device = resolve_device(RunSettings(), group.ranks)
    keep_freed_memory()
    settings = FinetuneLMSettings(
        emb_sz=given.emb, n_hid=given.hid, n_layers=given.layers, bs=given.bs, seq_len=given.seq, log_every=10**6,
        phases=(Phase(name="all", lr=1e-3),), checkpoint_minutes=None, checkpoint_steps=None,
    )
    n = given.steps * given.bs * given.seq + 1
    rng = np.random.default_rng(0)
    ids = rng.integers(2, given.rows, n + given.bs * given.seq).astype(np.uint16)
    text = Text(ids, np.array([0, n, len(ids)]))
    seed_weights(0)
    model = build_language_model(Architecture(given.rows, given.emb, given.hid, given.layers), settings, logits=False)
    train, valid = (
        LanguageModelLoader(text, np.array([i]), bs=given.bs, seq_len=given.seq, part=group.part(given.bs))
        for i in (0, 1)
    )
    task = Task(
        name="finetune_lm", model=model, splitter=awd_lstm_lm_split, loss=DecoderLoss(model[1].decoder), train=train,
        valid=valid, metrics=[TokenLoss(), TokenAccuracy()], unit="tokens", units=train.predicted_tokens,
        summarize=lambda figures: {"valid_loss": figures["token_loss"]}, save=lambda folder: None,
        load=lambda folder: None, callbacks=[StepTimes(times)],
    )
    with tempfile.TemporaryDirectory() as folder:
        train_phases(
            task, settings, settings.phases, device=device, seed=0, resume=Path(folder), fingerprint="0" * 64,
            reporter=Reporter(), group=group,
        )
    if group.rank == 0:
        step_s = statistics.median(times.steps[FIRST:])
        sums = [one for one in times.sums if one[0] > 2**16][FIRST:]
        sum_s = statistics.median(seconds for _, seconds in sums) if sums else 0.0
        size = sums[0][0] if sums else 0
        print(json.dumps({
            "processes": group.size, "device": str(device.device), "precision": device.precision,
            "parameters": sum(p.numel() for p in model.parameters()), "tokens_per_step": given.bs * given.seq,
            "step_s": round(step_s, 4), "tokens_per_s": round(given.bs * given.seq / step_s, 1),
            "reduced_bytes": size, "reduction_s": round(sum_s, 4),
            "share_of_step": round(sum_s / step_s, 3),
            "gigabytes_per_s": round(size / sum_s / 1e9, 3) if sums else None,
        }))


if __name__ == "__main__":
    main()
