"""The histories of a run as TensorBoard event files: loss, learning rate and validation figures."""

from datetime import datetime
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.report.gather import read_training
from pipeline.stage import Run

STEPS_PER_EPOCH = 1000
"""TensorBoard counts in whole steps; one of ours is a thousandth of an epoch."""


def write_events(run: Run, folder: Path) -> list[Path]:
    """Write a folder of event files for each model of `run` below `folder`; the folders.

    Raises UsageError if TensorBoard is not installed, InputError if the run has nothing sealed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "TensorBoard is not installed.", "Install it: pip install -c constraints.txt '.[tensorboard]'"
        ) from error
    folders = []
    for trained in read_training(run):
        target = folder / run.name / trained.role.replace("/", "-")
        for old in target.glob("events.out.tfevents.*"):
            old.unlink()
        at = datetime.fromisoformat(trained.created).timestamp()
        with SummaryWriter(str(target)) as writer:
            for point in trained.curve:
                for name in ("train_loss", "lr"):
                    step = round(STEPS_PER_EPOCH * point["epoch"])
                    writer.add_scalar(f"steps/{name}", point[name], step, walltime=at)
            for record in trained.history:
                for name, value in record.items():
                    if isinstance(value, int | float) and name != "epoch":
                        step = STEPS_PER_EPOCH * record["epoch"]
                        writer.add_scalar(f"epochs/{name}", value, step, walltime=at)
        folders.append(target)
    return folders
