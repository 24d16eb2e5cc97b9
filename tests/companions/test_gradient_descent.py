"""The line fitted three times: equal at every step, right at the end, and shown on its way."""

import json
from pathlib import Path

import gradient_descent
import numpy as np
import pytest
from PIL import Image, ImageSequence

from pipeline.errors import DataError, DivergedError, InputError


def test_three_equal_traces_end_at_the_line_of_least_squares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 50)
    y = -2 * x + 5 + rng.normal(0, 0.1, 50)
    source = tmp_path / "points.csv"
    np.savetxt(source, np.stack([x, y], 1), delimiter=",", header="x,y", comments="")
    gradient_descent.main(["--source", str(source), "--lr", "0.2", "--steps", "400", "--output", str(tmp_path)])
    figures = json.loads((tmp_path / "gradient_descent.json").read_text(encoding="utf-8"))
    best = np.polyfit(x, y, 1)
    assert set(figures["slope_intercept_loss"]) == {"by hand", "autograd", "optimizer"}
    for slope, intercept, _ in figures["slope_intercept_loss"].values():
        np.testing.assert_allclose((slope, intercept), best, atol=1e-3)
    assert max(figures["differences"].values()) < 1e-6
    assert f"line of least squares  {best[0]:.3f} x + {best[1]:.3f}" in capsys.readouterr().out
    with Image.open(tmp_path / "gradient_descent.gif") as picture:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(picture)]
    assert len(frames) > 20
    assert (frames[0] != frames[-1]).any()


def test_the_gradient_by_hand_is_the_slope_of_the_loss() -> None:
    x, y = np.array([0.0, 1.0, 3.0]), np.array([1.0, 2.0, -1.0])
    a, b, h = 0.3, -0.2, 1e-6
    _, by_a, by_b = gradient_descent.by_hand(x, y, a, b)
    loss = {at: gradient_descent.by_hand(x, y, *at)[0] for at in ((a + h, b), (a - h, b), (a, b + h), (a, b - h))}
    assert by_a == pytest.approx((loss[a + h, b] - loss[a - h, b]) / (2 * h), rel=1e-6)
    assert by_b == pytest.approx((loss[a, b + h] - loss[a, b - h]) / (2 * h), rel=1e-6)


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    source = tmp_path / "points.csv"
    with pytest.raises(InputError, match=r"points\.csv cannot be read: .* Give a CSV file of x,y .* with --source"):
        gradient_descent.main(["--source", str(source), "--output", str(tmp_path)])
    source.write_text("x,y\n1,two\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"points\.csv does not hold what is needed"):
        gradient_descent.main(["--source", str(source), "--output", str(tmp_path)])
    source.write_text("x,y\n1,2\n30,4\n", encoding="utf-8")
    with pytest.raises(DivergedError, match=r"grew without end at the learning rate 1\. Give a lower --lr"):
        gradient_descent.main(["--source", str(source), "--lr", "1", "--steps", "900", "--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["points.csv"]
