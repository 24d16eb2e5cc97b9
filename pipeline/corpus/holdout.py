"""Holding out a share of documents: seeded, stratified by label, whole units only.

A unit is a set of documents that must stay together: equal texts, members of one group, and chains of both.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Fraction = float | npt.NDArray[np.float64]
"""A share of every stratum, or one for each [strata]."""
ROUNDS = 4
"""How often the units of several documents are gone through."""


def connect(text_hashes: npt.NDArray[np.uint64], groups: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The unit of each of N documents: documents of equal text or of one group (-1: none) are connected."""
    texts: npt.NDArray[np.int64] = np.unique(text_hashes, return_inverse=True)[1].astype(np.int64)
    grouped = np.flatnonzero(groups >= 0)
    if not len(grouped):
        return texts
    n_texts, n_groups = int(texts.max()) + 1, int(groups.max()) + 1
    edges = coo_matrix(
        (np.ones(len(grouped), np.int8), (texts[grouped], n_texts + groups[grouped])), (n_texts + n_groups,) * 2
    )
    component = connected_components(edges, directed=False)[1]
    return np.unique(component[texts], return_inverse=True)[1].astype(np.int64)


def hold_out(
    units: npt.NDArray[np.int64],
    strata: npt.NDArray[np.int32],
    ranks: npt.NDArray[np.uint64],
    blocked: npt.NDArray[np.bool_],
    fraction: Fraction,
) -> npt.NDArray[np.bool_]:
    """Which of N documents are held out: about `fraction` of each stratum, in the order of `ranks`.

    `strata` is -1 for a document that only goes along with its unit; a unit with a `blocked` document stays. First
    units of several documents are taken as long as each brings the strata nearer to their share, then single documents
    make the shares exact. Every stratum of two or more documents gives at least one and keeps at least one, where
    its units allow.
    """
    out = np.zeros(len(units), np.bool_)
    counted = strata >= 0
    if not counted.any() or np.max(fraction) <= 0:
        return out
    totals = np.bincount(strata[counted])
    fractions = np.broadcast_to(fraction, len(totals))
    stays = np.zeros(int(units.max()) + 1, np.bool_)
    stays[units[blocked]] = True
    compound = ~stays[units] & (np.bincount(units)[units] > 1)
    single = ~stays[units] & counted & ~compound

    members = np.flatnonzero(compound)
    if len(members):
        out[members] = _choose_units(
            units[members], strata[members], ranks[members],
            totals=totals.tolist(), fractions=fractions, need_one=not single.any(),
        )
    taken = np.bincount(strata[out & counted], minlength=len(totals))

    singles = np.flatnonzero(single)
    singles = singles[np.lexsort((ranks[singles], strata[singles]))]
    first = np.searchsorted(strata[singles], np.arange(len(totals) + 1))
    for stratum, total in enumerate(totals):
        wanted = max(round(fractions[stratum] * total) - taken[stratum], int(taken[stratum] == 0))
        wanted = max(min(wanted, total - taken[stratum] - 1), 0)
        out[singles[first[stratum] : first[stratum + 1]][:wanted]] = True
    return out


def _choose_units(
    units: npt.NDArray[np.int64],
    strata: npt.NDArray[np.int32],
    ranks: npt.NDArray[np.uint64],
    *,
    totals: list[int],
    fractions: npt.NDArray[np.float64],
    need_one: bool,
) -> npt.NDArray[np.bool_]:
    """Which documents to hold out so that their counts come near to their share of each stratum, by whole units.

    Every unit, by its lowest rank, is taken if that brings the counts nearer (relative to the goals), and in later
    rounds given back for the same reason. With `need_one` the smallest unit is taken where no other was: a held-out
    split is not to be empty. No stratum is taken whole.
    """
    counted = strata >= 0
    goals = (fractions * np.bincount(strata[counted], minlength=len(totals))).tolist()
    order = np.argsort(ranks)
    _, first, inverse = np.unique(units[order], return_index=True, return_inverse=True)
    number = np.empty(len(units), np.int64)
    number[order] = np.argsort(np.argsort(first))[inverse]
    keys, counts = np.unique(number[counted] * len(totals) + strata[counted], return_counts=True)
    whose, stratum = np.divmod(keys, len(totals))
    starts = np.searchsorted(whose, np.arange(len(first) + 1)).tolist()
    pairs = list(zip(stratum.tolist(), counts.tolist(), strict=True))
    content = [pairs[start:stop] for start, stop in pairwise(starts)]

    taken = [0] * len(totals)
    chosen = np.zeros(len(first), np.bool_)
    for _ in range(ROUNDS):
        before = chosen.copy()
        for i, unit in enumerate(content):
            sign = -1 if before[i] else 1
            nearer = sum(n * (n + 2 * sign * (taken[s] - goals[s])) / goals[s] for s, n in unit) < 0
            if nearer and all(taken[s] + sign * n < totals[s] for s, n in unit):
                chosen[i] = not before[i]
                for s, n in unit:
                    taken[s] += sign * n
        if (chosen == before).all():
            break
    if need_one and not chosen.any():
        free = [i for i, unit in enumerate(content) if unit and all(n < totals[s] for s, n in unit)]
        if free:
            chosen[min(free, key=lambda i: sum(n for _, n in content[i]))] = True
    return chosen[number]
