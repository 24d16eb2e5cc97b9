"""Which split every document ends in.

The order is: unlabelled text moves out of train; `limit_per_split`; copies of the source's own validation texts leave
train and unlabelled text; test is held out where the source has none; then validation. Whatever is held out is seeded
and independent of the order of the source.

- A corpus where no document has a label is for language models only: all its text that is not test or validation is
  train. Otherwise a document of train without a label becomes unlabelled text; one of valid or test stays, unlabelled.
- Test is held out only of a corpus with labels that brings no test split, by `test_fraction`, or `test_documents` of
  them, as many of each label.
- Documents of equal text and members of one group stay together. A unit that holds a document of the source's test or
  valid split stays in train, and so does one that holds unlabelled text: the language model reads that. Only where a
  group says that text and documents belong together (the plot of a film), the unlabelled text goes along with them.
- Plain text gives the end of the file for validation, by `valid_fraction` of its characters.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.corpus.documents import SPLITS, TEST, TRAIN, UNLABELLED, VALID
from pipeline.corpus.holdout import Fraction, connect, hold_out
from pipeline.corpus.spool import Index
from pipeline.errors import DataError, UsageError
from pipeline.settings import GENERATED_KINDS, RUNNING_TEXT_KINDS, PrepareCorpusSettings

DROPPED = -1
Splits = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Plan:
    """The final split of N documents and what was done on the way."""

    splits: Splits
    """Position in SPLITS, DROPPED for a document that is left out."""
    without_label: dict[str, int]
    """Documents without a label by split of the source, in a corpus that has labels."""
    copies_dropped: int
    beyond_limit: int


def plan_splits(index: Index, settings: PrepareCorpusSettings) -> Plan:
    """Decide the split of every document of `index`; the seed is in `index.ranks`.

    Raises DataError if train would be empty, have one class only, or lack a class that another split has, and if the
    source's own splits cut through a group.
    """
    final = index.splits.copy()
    labelled = bool((index.labels >= 0).any())
    without_label: dict[str, int] = {}
    if labelled:
        missing = index.labels < 0
        counts = {name: int((missing & (final == number)).sum()) for number, name in enumerate(SPLITS)}
        without_label = {name: n for name, n in counts.items() if n and name != "unlabelled"}
        final[missing & (final == TRAIN)] = UNLABELLED
    else:
        final[final == UNLABELLED] = TRAIN
    beyond_limit = _limit(final, index, settings.limit_per_split) if settings.limit_per_split else 0
    _check_groups(final, index)
    if settings.kind in RUNNING_TEXT_KINDS:
        _cut_tail(final, index, settings.valid_fraction)
    copies = np.isin(final, (TRAIN, UNLABELLED)) & np.isin(index.text_hashes, index.text_hashes[final == VALID])
    final[copies] = DROPPED
    if settings.kind not in (*RUNNING_TEXT_KINDS, *GENERATED_KINDS):
        if labelled and not (final == TEST).any():
            _hold_out(final, index, labelled, TEST, _test_fraction(final, index, settings))
        if not (final == VALID).any():
            _hold_out(final, index, labelled, VALID, settings.valid_fraction)
    _check_classes(final, index, labelled)
    return Plan(final, without_label, int(copies.sum()), beyond_limit)


def _limit(final: Splits, index: Index, limit: int) -> int:
    """Drop what is beyond `limit` documents of each split; all labels get the same number, as far as they have it."""
    dropped = 0
    for split, name in enumerate(SPLITS):
        here = np.flatnonzero(final == split)
        if not len(here):
            continue
        codes, counts = np.unique(index.labels[here], return_counts=True)
        if limit < len(codes):
            raise UsageError(
                f"prepare_corpus.limit_per_split is {limit}, but split {name} has {len(codes)} labels.",
                f"Set it to {len(codes)} or more.",
            )
        for code, quota in zip(codes, quotas(counts.tolist(), limit), strict=True):
            stratum = here[index.labels[here] == code]
            late = stratum[np.argsort(index.ranks[stratum])][quota:]
            final[late] = DROPPED
            dropped += len(late)
    return dropped


def quotas(counts: list[int], limit: int) -> list[int]:
    """Shares of `limit` as equal as `counts` allow; what a small stratum cannot fill goes to the others."""
    quotas = [0] * len(counts)
    left = limit
    for place, i in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        quotas[i] = min(counts[i], left // (len(counts) - place))
        left -= quotas[i]
    return quotas


def _cut_tail(final: Splits, index: Index, fraction: float) -> None:
    rows = np.flatnonzero(final == TRAIN)
    if fraction <= 0 or len(rows) < 2:
        return
    after = np.cumsum(index.n_chars[rows][::-1].astype(np.int64))
    n_valid = int(np.searchsorted(after, fraction * after[-1], side="right"))
    final[rows[-min(max(n_valid, 1), len(rows) - 1) :]] = VALID


def _test_fraction(final: Splits, index: Index, settings: PrepareCorpusSettings) -> Fraction:
    """The share of train that becomes test; for `test_documents` that of each label."""
    wanted = settings.test_documents
    if wanted is None:
        return settings.test_fraction
    counts = np.bincount(index.labels[(final == TRAIN) & (index.labels >= 0)])
    present = int((counts > 0).sum())
    if wanted < present:
        raise UsageError(
            f"prepare_corpus.test_documents is {wanted}, but train has {present} labels.",
            f"Set it to {present} or more.",
        )
    return np.array(quotas(counts.tolist(), wanted)) / np.maximum(counts, 1)


def _hold_out(final: Splits, index: Index, labelled: bool, target: int, fraction: Fraction) -> None:
    rows = np.flatnonzero(final != DROPPED)
    splits, groups = final[rows], index.groups[rows]
    strata = np.where(splits == TRAIN, index.labels[rows] if labelled else 0, -1).astype(np.int32)
    blocked = (splits != TRAIN) & ((splits != UNLABELLED) | (groups < 0))
    units = connect(index.text_hashes[rows], groups) if len(rows) else np.zeros(0, np.int64)
    final[rows[hold_out(units, strata, index.ranks[rows], blocked, fraction)]] = target


def _check_groups(final: Splits, index: Index) -> None:
    """The source's own splits must not cut through a group."""
    learned = np.isin(final, (TRAIN, UNLABELLED))
    for one, other, names in (
        (learned, final == TEST, "train and test"),
        (learned, final == VALID, "train and valid"),
        (final == VALID, final == TEST, "valid and test"),
    ):
        shared = np.intersect1d(index.groups[one], index.groups[other])
        shared = shared[shared >= 0]
        if len(shared):
            raise DataError(
                f"Group {index.group_names[shared[0]]!r} is in both {names} ({len(shared)} such groups).",
                "Mend the source's split column, or unset prepare_corpus.group_column.",
            )


def _check_classes(final: Splits, index: Index, labelled: bool) -> None:
    if not (final == TRAIN).any():
        raise DataError("No document is left to train on.", "Check the source's train split and its labels.")
    if not labelled:
        return
    known = np.unique(index.labels[final == TRAIN])
    for split in (TEST, VALID):
        unknown = np.setdiff1d(index.labels[(final == split) & (index.labels >= 0)], known)
        if len(unknown):
            raise DataError(
                f"Split {SPLITS[split]} has the class {index.label_names[unknown[0]]!r}, which train never has.",
                "Give train some documents of it, or take it out.",
            )
    if len(known) == 1:
        raise DataError(
            f"Train has only one class: {index.label_names[known[0]]!r}.",
            "A classifier needs two; for a language model only, set prepare_corpus.label_column=none.",
        )
