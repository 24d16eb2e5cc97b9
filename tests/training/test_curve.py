"""The curve of a training: what its points mean, how many there are, and that a file gives them back."""

import math
from pathlib import Path

import pytest
from tiny_training import LM, LM_STEPS, train

from pipeline.training.curve import POINTS_PER_PHASE, Curve, read_curve, write_curve


def filled(steps: int, losses: list[float] | None = None, phase: int = 0, curve: Curve | None = None) -> Curve:
    curve = curve or Curve()
    for step in range(1, steps + 1):
        loss = losses[step - 1] if losses else float(step)
        curve.add(phase, f"p{phase}", step=step, steps=steps, epoch=step / steps, loss=loss, lr=step / 10)
    return curve


def test_few_steps_are_kept_one_by_one() -> None:
    assert filled(3).points == [
        {"phase": "p0", "epoch": step / 3, "train_loss": float(step), "lr": step / 10} for step in (1, 2, 3)
    ]


@pytest.mark.parametrize("steps", [POINTS_PER_PHASE, POINTS_PER_PHASE + 1, 12_345])
def test_many_steps_are_averaged_and_none_is_left_out(steps: int) -> None:
    points = filled(steps).points
    assert len(points) <= POINTS_PER_PHASE
    ends = [round(point["epoch"] * steps) for point in points]
    assert ends[-1] == steps
    total = sum(p["train_loss"] * (end - begin) for p, begin, end in zip(points, [0, *ends], ends, strict=False))
    assert total == pytest.approx(steps * (steps + 1) / 2)


def test_losses_that_are_no_numbers_are_left_out() -> None:
    steps = 2 * POINTS_PER_PHASE
    losses = [1.0, math.nan, math.inf, math.nan, 5.0, 7.0] + [1.0] * (steps - 6)
    points = filled(steps, losses).points
    assert [p["train_loss"] for p in points[:2]] == [1.0, 6.0]
    assert all(math.isfinite(p["train_loss"]) for p in points)


def test_a_phase_begins_with_nothing_of_the_one_before_it() -> None:
    curve = Curve()  # of a phase that was broken off early
    curve.add(0, "p0", step=1, steps=2 * POINTS_PER_PHASE, epoch=0.0, loss=100.0, lr=1.0)
    filled(2, phase=1, curve=curve)
    assert [p["train_loss"] for p in curve.points] == [1.0, 2.0]


def test_going_on_gives_the_points_of_an_unbroken_training() -> None:
    unbroken, steps = filled(1000), 1000
    first = Curve()
    for step in range(1, steps + 1):
        if step == 498:
            state, first = first.state(), Curve()
            first.restore(state)
        first.add(0, "p0", step=step, steps=steps, epoch=step / steps, loss=float(step), lr=step / 10)
    assert first.points == unbroken.points


def test_the_file_gives_the_same_points(tmp_path: Path) -> None:
    points = filled(7, [1 / 3, 2 / 7, 1e-17, 1e17, 5.0, 0.1, 3.0]).points
    write_curve(points, tmp_path)
    assert read_curve(tmp_path / "curve.csv") == points


def test_a_training_gives_its_losses_and_the_schedule(tmp_path: Path) -> None:
    points = train(tmp_path).trained.curve
    assert [p["phase"] for p in points] == ["frozen"] * LM_STEPS + ["all"] * 2 * LM_STEPS
    assert [p["epoch"] for p in points] == pytest.approx([(i + 1) / LM_STEPS for i in range(3 * LM_STEPS)])
    rates = [p["lr"] for p in points]
    for phase, first in zip(LM.phases, (0, LM_STEPS), strict=True):
        own = rates[first : first + phase.epochs * LM_STEPS]
        assert own[0] == pytest.approx(phase.lr / phase.div)
        assert max(own) == pytest.approx(phase.lr, rel=0.1)
    assert sum(p["train_loss"] for p in points[-5:]) < sum(p["train_loss"] for p in points[:5])
