"""One process of several that train the tiny models together; torchrun starts it for `test_ranks.py`.

Reads a list of cases from the file named first and writes what each came to into the folder named second, a file per
rank. A case is {"name", "kind": lm or classifier, "settings": {...}, "resume": folder} and may have "precision",
"stop_at" and "stopper": the batch after which that rank is asked to stop, and "gradients": true for those of the first
steps in float64.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from fastai.learner import Callback
from tiny_training import CLASSIFIER, LM, StopAt, train

from pipeline import ranks, stopping
from pipeline.errors import Stopped
from pipeline.settings import RunSettings
from pipeline.training.accumulation import Accumulation
from pipeline.training.device import resolve_device
from pipeline.training.group import ONE, Group

STEPS_OF_GRADIENTS = 8


class StepLosses(Callback):
    """The loss of every training batch."""

    order = 60
    run_valid = False

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_batch(self) -> None:
        self.losses.append(float(self.loss.detach()))


class Gradients(Callback):
    """The model in float64, and what the optimizer would see of its first steps."""

    order = Accumulation.order + 0.1
    run_valid = False

    def __init__(self) -> None:
        self.found: list[dict[str, list[float]]] = []

    def before_fit(self) -> None:
        self.model.double()
        self.mixed_precision.after_loss = self.mixed_precision.contexts.close  # nobody asks for float64

    def after_fit(self) -> None:
        self.mixed_precision.observed = {torch.float32}  # the training is asked for that

    def before_step(self) -> None:
        if len(self.found) < STEPS_OF_GRADIENTS:
            named = self.model.named_parameters()
            self.found.append({name: p.grad.flatten().tolist() for name, p in named if p.grad is not None})


def run_case(case: dict[str, Any], group: Group = ONE) -> dict[str, Any]:
    """Train; the losses, the history and a hash of the weights."""
    settings = {"lm": LM, "classifier": CLASSIFIER}[case["kind"]]
    settings = type(settings).model_validate({**settings.model_dump(), **case["settings"]})
    losses, gradients = StepLosses(), Gradients()
    callbacks: list[Callback] = [losses]
    if case.get("stop_at") and group.rank == case["stopper"]:
        callbacks.append(StopAt(case["stop_at"]))
    if case.get("gradients"):
        callbacks.append(gradients)
    found: dict[str, Any] = {"losses": losses.losses, "gradients": gradients.found}
    try:
        result = train(
            Path(case["resume"]), settings, callbacks, case.get("precision", "fp32"), group=group,
            device=resolve_device(RunSettings(device=case.get("device", "cpu")), group.ranks).device,
        )
    except Stopped as error:
        stopping.forget()
        return {**found, "stopped": str(error)}
    weights = hashlib.sha256()
    for name, tensor in sorted(result.weights.items()):
        if tensor.dim():
            weights.update(name.encode() + tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return {**found, "history": result.history, "weights": weights.hexdigest(), "log": result.log}


def main() -> None:
    """All cases, one after the other."""
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    here = ranks.join()
    torch.set_num_threads(1)
    for case in cases:
        found = run_case(case, Group(here))
        path = Path(sys.argv[2], f"{case['name']}-{here.rank}.json")
        path.write_text(json.dumps(found), encoding="utf-8")
    os._exit(0)  # as followers.as_rank ends: gloo's threads abort an orderly end when another rank is gone before


if __name__ == "__main__":
    main()
