"""Fit a line by gradient descent three times: gradients by hand, by autograd, and by an optimizer.

    python scripts/companions/gradient_descent.py

The three take the same 10,000 steps from the start that the note printed, and stay equal. The GIF shows the way.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import companion
import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.nn.functional import mse_loss

from pipeline.errors import DivergedError
from pipeline.storage import write_durably

Floats = NDArray[np.float64]
Gradients = Callable[[Floats, Floats, float, float], tuple[float, float, float]]
N_POINTS, SEED = 10_000, 42
START = (0.5666, 1.1612)
"""The random slope and intercept of the note's run."""
NOTE = (65.5859, 0.5537, 0.1400, 0.1267, 0.1184, 0.1119, 0.1070, 0.1032, 0.1003, 0.0981)
"""Its loss at every 1,000th step."""
FRAMES, POINTS_SHOWN = 40, 200


def points(source: Path | None) -> tuple[Floats, Floats]:
    """x and y of a CSV file, or as in the note y = 3 x + 8 with noise of variance 0.09: no line gets below that."""
    if source is None:
        rng = np.random.default_rng(SEED)
        x = rng.uniform(0, 1, N_POINTS)
        return x, 3 * x + 8 + rng.normal(0, 0.3, N_POINTS)
    with companion.reading(source, "a CSV file of x,y under one line of headings"):
        x, y = np.loadtxt(source, delimiter=",", skiprows=1, ndmin=2).T
    return x, y


def by_hand(x: Floats, y: Floats, a: float, b: float) -> tuple[float, float, float]:
    """Mean squared error of the line a x + b, and its derivatives by a and b."""
    error = a * x + b - y
    return float(np.mean(error**2)), float(2 * np.mean(x * error)), float(2 * np.mean(error))


def by_autograd(x: Floats, y: Floats, a: float, b: float) -> tuple[float, float, float]:
    """The same, derived by torch."""
    line = torch.tensor([a, b], dtype=torch.float64, requires_grad=True)
    loss = mse_loss(line[0] * torch.from_numpy(x) + line[1], torch.from_numpy(y))
    (gradient,) = torch.autograd.grad(loss, line)
    return loss.item(), *gradient.tolist()


def descend(gradients: Gradients, x: Floats, y: Floats, steps: int, lr: float) -> Floats:
    """Slope, intercept and loss before each step and after the last, [steps + 1, 3]."""
    (a, b), trace = START, []
    for _ in range(steps + 1):
        loss, by_a, by_b = gradients(x, y, a, b)
        trace.append((a, b, loss))
        a, b = a - lr * by_a, b - lr * by_b
    return np.array(trace)


def by_optimizer(x: Floats, y: Floats, steps: int, lr: float) -> Floats:
    """What `descend` gives, from torch's linear layer and SGD."""
    xs, ys = torch.tensor(x)[:, None], torch.tensor(y)[:, None]
    line = torch.nn.Linear(1, 1, dtype=torch.float64)
    for parameter, value in zip(line.parameters(), START, strict=True):
        torch.nn.init.constant_(parameter, value)
    optimizer = torch.optim.SGD(line.parameters(), lr)
    trace = []
    for _ in range(steps + 1):
        loss = mse_loss(line(xs), ys)
        trace.append((line.weight.item(), line.bias.item(), loss.item()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return np.array(trace)


def animate(path: Path, x: Floats, y: Floats, trace: Floats) -> None:
    """The line on its way, as a GIF: many frames of the first steps, few of the last."""
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    axes.scatter(x[:POINTS_SHOWN], y[:POINTS_SHOWN], s=6, color="tab:gray")
    ends = np.array([x.min(), x.max()])
    (line,) = axes.plot(ends, ends, color="tab:red")
    axes.set(xlabel="x", ylabel="y", ylim=(min(y.min(), START[1]) - 0.5, y.max() + 0.5))

    def show(step: int) -> None:
        a, b, loss = trace[step]
        line.set_ydata(a * ends + b)
        axes.set_title(f"step {step:,}: y = {a:.2f} x + {b:.2f}, loss {loss:.3f}")

    steps = np.unique(np.rint(np.linspace(0, 1, FRAMES) ** 3 * (len(trace) - 1)).astype(int)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        FuncAnimation(figure, show, steps, init_func=list).save(Path(folder) / path.name, PillowWriter(fps=8), dpi=70)
        write_durably(path, (Path(folder) / path.name).read_bytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the line three times, compare, and show the way."""
    parser = companion.options(__doc__, "CSV file of x,y under one line of headings; default: 10,000 generated points")
    parser.add_argument("--steps", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--lr", type=float, default=1e-3, help="default: %(default)s")
    given = parser.parse_args(arguments)
    x, y = points(given.source)
    with np.errstate(over="ignore", invalid="ignore"):
        traces = {
            "by hand": descend(by_hand, x, y, given.steps, given.lr),
            "autograd": descend(by_autograd, x, y, given.steps, given.lr),
            "optimizer": by_optimizer(x, y, given.steps, given.lr),
        }
    if not all(np.isfinite(trace).all() for trace in traces.values()):
        raise DivergedError(f"The loss grew without end at the learning rate {given.lr:g}.", "Give a lower --lr.")
    first, (slope, intercept) = traces["by hand"], np.polyfit(x, y, 1)
    differences = {name: float(np.abs(trace - first).max()) for name, trace in traces.items()}
    told = {} if given.source else {1000 * i: f"{loss:.4f}" for i, loss in enumerate(NOTE)}
    rows = [["", *traces, "note"]]
    for step in range(0, given.steps + 1, max(1, given.steps // 10)):
        rows.append([f"loss at step {step:,}", *(f"{t[step, 2]:.4f}" for t in traces.values()), told.get(step, "")])
    rows.append(["line at the end", *(f"{t[-1, 0]:.3f} x + {t[-1, 1]:.3f}" for t in traces.values()), ""])
    rows.append(["line of least squares", f"{slope:.3f} x + {intercept:.3f}", "", "", ""])
    rows.append(["largest difference", *(f"{value:.0e}" for value in differences.values()), ""])
    ends = {name: trace[-1].tolist() for name, trace in traces.items()}
    companion.deliver("gradient_descent", given, rows, {"slope_intercept_loss": ends, "differences": differences})
    animate(given.output / "gradient_descent.gif", x, y, first)


if __name__ == "__main__":
    companion.run(main)
