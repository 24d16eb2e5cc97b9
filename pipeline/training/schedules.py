"""Learning-rate schedules of a phase, as functions of the share of it that is done.

one-cycle and flat-cosine are fastai's `fit_one_cycle` and `fit_flat_cos`; slanted-triangular is ULMFiT's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from fastai.callback.schedule import ParamScheduler, combined_cos
from fastai.learner import Callback
from numpy.typing import NDArray

from pipeline.training.learner import ResumableLearner
from pipeline.training_settings import Phase

Rates = NDArray[np.float64]
"""One learning rate per layer group."""
Moms = tuple[float, float, float]

PCT_START = {"one-cycle": 0.25, "flat-cosine": 0.75}
"""fastai's defaults."""


def fit_phase(learn: ResumableLearner, phase: Phase, moms: Moms, callbacks: Sequence[Callback]) -> None:
    """Train the layers of `learn` that are not frozen as `phase` says, with `callbacks` for this phase alone."""
    learn.opt.set_hyper("lr", phase.lr if phase.lr_lowest is None else slice(phase.lr_lowest, phase.lr))
    rates = np.array([hypers["lr"] for hypers in learn.opt.hypers])
    learn.fit(phase.epochs, cbs=[Schedule(hyper_schedules(phase, rates, moms)), *callbacks])


class Schedule(ParamScheduler):
    """fastai's, which stands still while batches are gathered for one step of the optimizer.

    Where steps have random lengths, the rate is scaled by length / seq_len (AWD-LSTM sec. 5): the loss is a mean over
    tokens, and those of a short step would otherwise count for more.
    """

    def before_batch(self) -> None:
        """Set the rates for a step."""
        if not self.accumulation.begins:
            return
        super().before_batch()
        train = self.dls.train
        if train.random_lengths:
            share = self.xb[0].shape[1] / train.seq_len
            self.opt.set_hyper("lr", np.array([hypers["lr"] * share for hypers in self.opt.hypers]))


def hyper_schedules(phase: Phase, rates: Rates, moms: Moms) -> dict[str, Callable[[float], Any]]:
    """Learning rates and momentum at each share of the phase between 0 and 1; `rates` are the highest."""
    if phase.schedule == "slanted-triangular":
        return {"lr": slanted_triangular(rates, phase.cut_frac, phase.ratio), "mom": lambda done: moms[1]}
    start = PCT_START[phase.schedule] if phase.pct_start is None else phase.pct_start
    if phase.schedule == "flat-cosine":
        return {"lr": combined_cos(start, rates, rates, rates / phase.div_final), "mom": lambda done: moms[1]}
    return {
        "lr": combined_cos(start, rates / phase.div, rates, rates / phase.div_final), "mom": combined_cos(start, *moms)
    }


def slanted_triangular(rates: Rates, cut_frac: float, ratio: float) -> Callable[[float], Rates]:
    """Up in a line from rates / ratio until `cut_frac` of the phase, then down in a longer one (ULMFiT sec. 3.2).

    The published formula rounds the peak down to a whole step, after which short trainings end at rates below zero;
    here it is not rounded, which is the same wherever the peak falls on a step.
    """

    def rates_at(done: float) -> Rates:
        share = done / cut_frac if done < cut_frac else (1.0 - done) / (1.0 - cut_frac)
        return rates * (1.0 + share * (ratio - 1.0)) / ratio

    return rates_at
