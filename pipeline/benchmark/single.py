"""The reviews that are predicted one at a time."""

import numpy as np

from pipeline.benchmark.data import reviews
from pipeline.benchmark.turns import Work


def single_reviews(work: Work) -> list[str]:
    """Generated reviews, all of the same number of words."""
    lengths = np.full(work.sizes.singles, work.sizes.single_words)
    return reviews(lengths, np.random.default_rng(1))
