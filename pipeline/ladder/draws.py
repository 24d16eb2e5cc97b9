"""Documents drawn by class: a class first, all alike, and then one of its documents, as S6 draws its names."""

import numpy as np
from numpy.typing import NDArray

from pipeline.training.loaders import ClassifierLoader


class DrawnLoader(ClassifierLoader):
    """A `ClassifierLoader` whose shuffled epochs have all classes equally often; rare documents come several times."""

    def drawn(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions in `chosen`, as many as there are, drawn with replacement."""
        classes, counts = np.unique(self._labels[self._chosen], return_counts=True)
        by_class = np.argsort(self._labels[self._chosen], kind="stable")
        first = np.cumsum(counts) - counts
        drawn = rng.integers(len(classes), size=len(by_class))
        return by_class[first[drawn] + rng.integers(counts[drawn])]
