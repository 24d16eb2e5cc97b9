"""What the neural rungs share: training by the stages' own loop, and what is kept of it."""

import shutil
from pathlib import Path
from typing import Any

from fastcore.foundation import L
from torch import nn

from pipeline.artifact import Artifact
from pipeline.errors import DivergedError
from pipeline.ladder.rungs import RungSettings
from pipeline.making import StageOutcome
from pipeline.model.text_files import copy_text_files
from pipeline.progress import Reporter
from pipeline.training.curve import write_curve
from pipeline.training.device import Device
from pipeline.training.history import Record, write_history
from pipeline.training.phases import Trained, train_phases
from pipeline.training.task import Task

WEIGHTS = "weights.safetensors"


def fit(
    task: Task, settings: RungSettings, ids: Artifact, *, seed: int, device: Device, work: Path, resume: Path,
    fingerprint: str, reporter: Reporter,
) -> Trained:
    """Train `task` and write its best epoch's weights, vocabulary, tokenizer, history and curve into `work`.

    Goes on from the checkpoints in `resume`. Raises Stopped, and DivergedError if the loss is no number any more.
    """
    try:
        trained = train_phases(
            task, settings, settings.phases, device=device, seed=seed, resume=resume, fingerprint=fingerprint,
            reporter=reporter,
        )
    except DivergedError as error:
        raise DivergedError(error.what, "Leave the rung out: name the others with --rungs.") from error
    shutil.copy2(trained.best.folder / WEIGHTS, work / WEIGHTS)
    write_history(trained.history, work)
    write_curve(trained.curve, work)
    copy_text_files(ids.path, work)
    return trained


def best_of(trained: Trained) -> Record:
    """What was measured in the best epoch."""
    assert trained.best.record is not None  # every epoch was offered
    return trained.best.record


def outcome(task: Task, trained: Trained, ids: Artifact, device: Device, metrics: dict[str, Any]) -> StageOutcome:
    """What the manifest says: `metrics`, and what all trainings tell."""
    return StageOutcome(
        metrics={
            **metrics,
            "best_epoch": best_of(trained)["epoch"],
            "parameters": sum(p.numel() for p in task.model.parameters()),
            "train_s": round(sum(record["train_s"] for record in trained.history), 3),
            "epochs": len(trained.history),
        },
        identity=dict(ids.manifest.identity),
        device=str(device.device),
        hardware=device.gpu,
        precision={"requested": device.requested, "effective": trained.precision},
    )


def weights(model: nn.Module) -> dict[str, Any]:
    """Every tensor that training changes, by name; tied ones once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def one_group(model: nn.Module) -> L:
    """All layers learn at one rate."""
    return L(L(model.parameters()))
