"""A picture of chosen words: their embeddings on the two axes along which these words differ most (PCA)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from pipeline.errors import UsageError
from pipeline.inference.neighbours import WordVectors
from pipeline.picture import check_picture, write_picture

_BESIDE = [(x, y, side) for y in (3, -10, 15, -22, 27) for x, side in ((5, "left"), (-5, "right"))]
"""Where a name may stand, in points from its own, and which end of it is there; the nearest first."""


def plot_words(words: WordVectors, chosen: Sequence[str], path: Path) -> None:
    """Write the picture, a PNG or SVG file; the same words of the same model give the same one.

    Raises UsageError for another suffix, fewer than three different words, or one that the vocabulary lacks.
    """
    check_picture(path, "--plot")
    tokens = list(dict.fromkeys(words.token(word) for word in chosen))
    if len(tokens) < 3:
        raise UsageError(f"{len(tokens)} different words make no picture.", "Name three or more: --words good,bad,film")
    pca = PCA(n_components=2, svd_solver="full")
    places = pca.fit_transform(words.of_words(tokens).astype(np.float64))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(0, color="0.9", linewidth=0.8, zorder=0)
        axes.axvline(0, color="0.9", linewidth=0.8, zorder=0)
        axes.plot(*places.T, "o", color="tab:blue", markersize=4)
        shares = [f"axis {number}: {share:.0%} of the variance"
                  for number, share in enumerate(pca.explained_variance_ratio_, 1)]
        axes.set(xlabel=shares[0], ylabel=shares[1], title=f"{len(tokens)} words of {words.model}")
        axes.margins(0.12)
        axes.tick_params(colors="0.5")
        _name_points(axes, tokens, places)

    write_picture(path, (7, 5), draw)


def _name_points(axes: Axes, names: Sequence[str], places: NDArray[np.float64]) -> None:
    """Write each name beside its point, where it covers no point and no name before it if there is such a place."""
    assert isinstance(axes.figure, Figure)
    axes.figure.draw_without_rendering()  # places the axes
    taken = [Bbox.from_bounds(x - 3, y - 3, 6, 6) for x, y in axes.transData.transform(places)]
    for name, place in zip(names, places, strict=True):
        for x, y, side in _BESIDE:
            note = axes.annotate(name, place, textcoords="offset points", xytext=(x, y), ha=side)
            box = note.get_window_extent()
            if not any(box.overlaps(other) for other in taken) or (x, y, side) == _BESIDE[-1]:
                taken.append(box)
                break
            note.remove()
