"""Schedules: their shapes against fastai and the paper, and exact resume under each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastai.callback.schedule import ParamScheduler
from fastai.learner import Callback
from fastai.test_utils import synth_learner
from pydantic import ValidationError
from tiny_training import CLASSIFIER, LM, LM_STEPS, StopAt, same, train

from pipeline import stopping
from pipeline.errors import Stopped
from pipeline.training.schedules import hyper_schedules, slanted_triangular
from pipeline.training_settings import Phase, TrainingSettings

MOMS = (0.8, 0.7, 0.8)
SCHEDULES = ("one-cycle", "flat-cosine", "slanted-triangular")


@pytest.fixture(autouse=True)
def _no_request_left() -> Iterator[None]:
    yield
    stopping.forget()


class Rates(Callback):
    """Learning rates of first and last layer group and momentum at every training step."""

    order = ParamScheduler.order + 1

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, float]] = []

    def before_batch(self) -> None:
        if self.training:
            first, last = self.opt.hypers[0], self.opt.hypers[-1]
            self.seen.append((float(first["lr"]), float(last["lr"]), float(last["mom"])))


def with_schedule(settings: TrainingSettings, schedule: str, **more: Any) -> TrainingSettings:
    """`settings` with one phase of two epochs that has this schedule."""
    phase = Phase(name="all", epochs=2, lr=1e-2, lr_lowest=1e-3, schedule=schedule, **more)
    return settings.model_copy(update={"phases": (phase,)})


@pytest.mark.parametrize("schedule", ["one-cycle", "flat-cosine"])
def test_rates_are_those_of_fastais_own_fits(schedule: str) -> None:
    learn = synth_learner(n_trn=4)
    with learn.no_bar(), learn.no_logging():
        if schedule == "one-cycle":
            learn.fit_one_cycle(3, 1e-2, moms=MOMS)
        else:
            learn.fit_flat_cos(3, 1e-2)
    theirs = learn.recorder.hps
    ours = hyper_schedules(Phase(name="a", lr=1e-2, schedule=schedule), np.array([1e-2]), MOMS)
    done = np.arange(len(theirs["lr"])) / len(theirs["lr"])
    assert len(done) >= 6
    np.testing.assert_allclose([float(ours["lr"](d)[0]) for d in done], theirs["lr"], rtol=1e-9)
    if schedule == "one-cycle":
        np.testing.assert_allclose([float(ours["mom"](d)) for d in done], theirs["mom"], rtol=1e-9)


def test_slanted_triangular_is_the_formula_of_the_paper() -> None:
    steps, cut_frac, ratio, highest = 200, 0.1, 32, 0.01
    cut = int(steps * cut_frac)
    published = []
    for t in range(steps):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        published.append(highest * (1 + p * (ratio - 1)) / ratio)
    rates_at = slanted_triangular(np.array([highest]), cut_frac, ratio)
    ours = [float(rates_at(t / steps)[0]) for t in range(steps)]
    np.testing.assert_allclose(ours, published, rtol=1e-12)
    assert int(np.argmax(ours)) == cut
    assert ours[cut] == pytest.approx(highest)


def test_slanted_triangular_never_falls_below_its_end_in_a_short_training() -> None:
    rates_at = slanted_triangular(np.array([1.0]), 0.1, 32)
    assert min(float(rates_at(t / 15)[0]) for t in range(15)) >= 1 / 32


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_layer_groups_keep_their_proportion_and_momentum_follows_the_settings(tmp_path: Path, schedule: str) -> None:
    rates = Rates()
    train(tmp_path, with_schedule(LM, schedule), (rates,))
    assert len(rates.seen) == 2 * LM_STEPS
    first, last, moms = map(np.array, zip(*rates.seen, strict=True))
    np.testing.assert_allclose(first, last / 10)
    assert last.max() <= 1e-2 * (1 + 1e-12)
    if schedule == "one-cycle":
        assert moms.max() == pytest.approx(0.8)
    else:
        assert set(moms) == {0.7}
    ends = {"one-cycle": (1e-2 / 25, 5e-4), "flat-cosine": (1e-2, 5e-4), "slanted-triangular": (1e-2 / 32, 7e-4)}
    assert last[0] == pytest.approx(ends[schedule][0])
    assert last[-1] < ends[schedule][1]


@pytest.mark.parametrize("settings", [LM, CLASSIFIER])
@pytest.mark.parametrize("schedule", SCHEDULES[1:])
def test_every_schedule_resumes_exactly(tmp_path: Path, settings: TrainingSettings, schedule: str) -> None:
    settings = with_schedule(settings, schedule)
    unbroken = train(tmp_path / "unbroken", settings)
    for moment in (1, 4, 7, 11):
        with pytest.raises(Stopped):
            train(tmp_path / str(moment), settings, (StopAt(moment),))
        stopping.forget()
        assert same(train(tmp_path / str(moment), settings), unbroken), f"stopped at batch {moment}"


@pytest.mark.parametrize(
    ("schedule", "name", "value"),
    [("one-cycle", "cut_frac", 0.2), ("flat-cosine", "div", 5.0), ("slanted-triangular", "pct_start", 0.3)],
)
def test_a_setting_that_would_do_nothing_is_refused(schedule: str, name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=rf"phase all: {name} does nothing in a {schedule} schedule"):
        Phase.model_validate({"name": "all", "lr": 1.0, "schedule": schedule, name: value})
