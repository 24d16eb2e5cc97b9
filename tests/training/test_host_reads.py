"""How often a training step makes the processor wait for the device: reads of values, here counted on a CPU."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from fastai.learner import Callback
from tiny_training import CLASSIFIER, LM
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.training_settings import TrainingSettings

ON_THE_HOST = ("callback/schedule.py", "training/schedules.py:before_batch")
"""Learning rates and step counts are numbers of the host, though fastai keeps some of them in tensors."""


class Reads(TorchDispatchMode):
    """Notes where Python reads a value that was computed on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Sequence[Any], args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self) -> None:
        places = [f"{frame.filename}:{frame.name}" for frame in traceback.extract_stack()]
        if not any(name in place for place in places for name in ON_THE_HOST):
            ours = [place.rpartition("/")[2] for place in places if "/pipeline/" in place]
            self.places.append(ours[-1])


class PerStep(Callback):
    """The reads of each training step, up to the end of the optimizer's."""

    order = 100

    def __init__(self, reads: Reads) -> None:
        self.reads = reads
        self.found: list[list[str]] = []

    def before_batch(self) -> None:
        self.reads.places.clear()

    def after_step(self) -> None:
        self.found.append(list(self.reads.places))


@pytest.mark.parametrize(("settings", "allowed"), [
    (LM, ["divergence.py:before_step"]),
    (CLASSIFIER, ["awd_lstm.py:forward", "divergence.py:before_step"]),
], ids=["finetune_lm", "train_classifier"])
def test_a_step_waits_only_for_these(
    tmp_path: Path, settings: TrainingSettings, allowed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether loss and gradient are finite must be known before the next step; a classifier's batch, how many rows of
    each chunk have begun."""
    plain = Tensor.tolist
    with Reads() as reads:
        def tolist(self: Tensor) -> Any:  # on a CPU it reads without an operation
            reads.note()
            return plain(self)

        monkeypatch.setattr(Tensor, "tolist", tolist)
        steps = PerStep(reads)
        tiny_training.train(tmp_path, settings, [steps], precision="bf16")
    assert len(steps.found) > 10
    for places in steps.found:
        assert list(dict.fromkeys(places)) == allowed
