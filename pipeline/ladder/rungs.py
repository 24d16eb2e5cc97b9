"""Every rung of the ladder: what it is, whose idea, how it is trained, and what its note reached.

The notes are five public study notes, S1 to S6 here; S2 builds language models on Human Numbers step by step. Their
architectures, rates and batches are kept. LMModel3 to 6 are trained for twice the epochs of the note: repeated word for
word five times, its 10 and 15 gave accuracies of 0.60, 0.60, 0.55 and 0.75 on average, below the one run that it
reports (CHANGELOG.md). This module imports nothing heavy: help and
errors list the rungs.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import UsageError
from pipeline.settings import Phase, TrainingSettings, setting

KNESER_NEY, AWD_LSTM = "kneser-ney", "AWD_LSTM"
Kind = Literal["language model", "classifier"]


class RungSettings(TrainingSettings):
    """Sizes and training of a rung; where the notes say nothing, fastai's defaults."""

    alpha: float = setting(0.0, "Activation regularization; only LMModel7 has it.", ge=0.0)
    beta: float = setting(0.0, "Temporal activation regularization; only LMModel7 has it.", ge=0.0)
    moms: tuple[float, float, float] = setting((0.95, 0.85, 0.95), "Momentum of one-cycle (fastai's plain Learner).")
    n_hid: int = setting(64, "Hidden size.", ge=1)
    n_layers: int = setting(1, "Recurrent layers.", ge=1)
    output_p: float = setting(0.0, "Dropout before the decoder.", ge=0.0, lt=1.0)
    stride: int | None = setting(
        None, "Windows of seq_len tokens begin this far apart and are read without memory; none: streams whose state "
        "goes on from batch to batch.", ge=1,
    )
    shuffle: bool = setting(False, "Windows come in another order in each epoch; S2 reads them in that of the text.")
    predicts: Literal["all", "last"] = setting("all", "Positions of a step whose next token is predicted.")
    phases: tuple[Phase, ...] = setting((), "Cycles in order.")


@dataclass(frozen=True)
class Published:
    """A figure that a note reports, and how it came about."""

    metric: str
    value: float
    protocol: str


@dataclass(frozen=True)
class Rung:
    """One model of the ladder."""

    name: str
    kind: Kind
    about: str
    source: str
    """Whose model it is."""
    settings: RungSettings | None = None
    """None: the rung is made by the stages of the run, or has no gradient."""
    published: Mapping[str, Published] = field(default_factory=dict)
    """By the kind of corpus (prepare_corpus.kind)."""

    @property
    def is_certain(self) -> bool:
        """True if it draws no random number, so that every seed would give the same."""
        return self.name == KNESER_NEY


def _one_cycle(epochs: int, lr: float) -> tuple[Phase, ...]:
    return (Phase(name="all", epochs=epochs, lr=lr),)


def _human_numbers(accuracy: float, epochs: int) -> dict[str, Published]:
    protocol = f"one run of {epochs} epochs, read off its table near the best of them; 20 % of the text to validate"
    return {"human-numbers": Published("accuracy", accuracy, protocol)}


_LANGUAGE_MODELS = (
    Rung(KNESER_NEY, "language model", "counts of 2 to 5 words, smoothed", "Kneser and Ney 1995"),
    Rung(
        "LMModel1", "language model", "three words through one linear layer, unrolled", "S2",
        RungSettings(seq_len=3, stride=3, predicts="last", phases=_one_cycle(4, 1e-3)),
        _human_numbers(0.47, 4),
    ),
    Rung(
        "LMModel2", "language model", "the same as a loop", "S2",
        RungSettings(seq_len=3, stride=3, predicts="last", phases=_one_cycle(4, 1e-3)),
        _human_numbers(0.48, 4),
    ),
    Rung(
        "LMModel3", "language model", "the loop keeps its state from batch to batch", "S2",
        RungSettings(seq_len=3, predicts="last", phases=_one_cycle(20, 3e-3)),
        _human_numbers(0.61, 10),
    ),
    Rung(
        "LMModel4", "language model", "predicts after every word, 16 words a step", "S2",
        RungSettings(seq_len=16, phases=_one_cycle(30, 3e-3)), _human_numbers(0.66, 15),
    ),
    Rung(
        "LMModel5", "language model", "two layers of nn.RNN", "S2",
        RungSettings(seq_len=16, n_layers=2, phases=_one_cycle(30, 3e-3)), _human_numbers(0.55, 15),
    ),
    Rung(
        "LMModel6", "language model", "two layers of LSTM", "S2",
        RungSettings(seq_len=16, n_layers=2, phases=_one_cycle(30, 1e-2)), _human_numbers(0.78, 15),
    ),
    Rung(
        "LMModel7", "language model", "tied weights, dropout, AR and TAR", "S2",
        RungSettings(
            seq_len=16, n_layers=2, output_p=0.4, alpha=2.0, beta=1.0, moms=(0.8, 0.7, 0.8), wd=0.1,
            phases=_one_cycle(15, 1e-2),
        ),
        _human_numbers(0.82, 15),
    ),
    Rung(AWD_LSTM, "language model", "this pipeline's language model, as the recipe says", "stage finetune_lm"),
)
RUNGS = {rung.name: rung for rung in _LANGUAGE_MODELS}
"""Bottom to top."""


def rungs_named(names: Sequence[str]) -> list[Rung]:
    """The rungs called `names`, in the ladder's order; UsageError suggests the nearest to one that is not there."""
    for name in names:
        if name not in RUNGS:
            near = difflib.get_close_matches(name, RUNGS, 1, 0.0)[0]
            raise UsageError(f"There is no rung {name!r}.", f"Did you mean {near!r}? Rungs: {', '.join(RUNGS)}.")
    return [rung for rung in RUNGS.values() if rung.name in names]
