"""What one training stage trains: everything that language model and classifier do not share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from fastai.learner import Callback, Metric
from torch import Tensor, nn

from pipeline.training.history import Record
from pipeline.training.loaders import Batch


class Loader(Protocol):
    """Batches whose order is a function of seed and epoch, and that can be asked for from any number on."""

    bs: int
    seq_len: int
    epoch: int
    random_lengths: bool

    def __len__(self) -> int:
        """Batches of an epoch."""

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `first` on."""


@dataclass(frozen=True)
class Task:
    """What one training stage trains, and how its weights go to and from a folder."""

    name: str
    model: nn.Module
    splitter: Callable[[nn.Module], Any]
    loss: Any
    train: Loader
    valid: Loader
    metrics: Sequence[Metric]
    unit: str
    """What is counted for the speed: tokens or documents."""
    units: int
    """Units of one epoch."""
    summarize: Callable[[dict[str, float]], Record]
    """Turns the metric values of an epoch into the figures of the history."""
    save: Callable[[Path], None]
    load: Callable[[Path], None]
    keep_best: Literal["accuracy", "valid_loss"] | None = None
    """Keep the weights of the best epoch, too: of the highest accuracy on validation or of the lowest loss."""
    callbacks: Sequence[Callback] = ()
    weigh: Callable[[Tensor], float] | None = None
    """What the mean in the loss divides by, given the targets [B, ...] of a batch; default: the number of rows."""

    pools: bool = False
    """It puts the rows of a batch together in front of its last layers, whose targets are those of all rows: several
    processes then share the encoder's rows alone."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of the model's weights."""
        return sum(tensor.nbytes for tensor in self.model.state_dict().values())

    def is_better(self, record: Record, other: Record) -> bool:
        """True if the validation figures of `record` are better than those of `other`.

        Where `keep_best` is accuracy, the higher one counts, and the lower loss decides a tie; else the lower loss.
        """
        if self.keep_best != "accuracy":
            return record["valid_loss"] < other["valid_loss"]
        return (record["accuracy"], -record["valid_loss"]) > (other["accuracy"], -other["valid_loss"])
