"""prepare_corpus: read a source, clean it, split it, and write the corpus.

Writes documents.parquet and labels.json. The cleaning policy is in `pipeline.corpus.cleaning`, the split policy in
`pipeline.corpus.splits`. Of a folder of tables each table is cleaned into a file of its own, by several jobs at once if
one likes; an interrupted run goes on after the last whole one.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import stopping
from pipeline.artifact import Manifest
from pipeline.corpus import source as sources
from pipeline.corpus.cleaning import COUNTED, clean_text
from pipeline.corpus.documents import SPLITS, TRAIN
from pipeline.corpus.readers import Part, parts_of
from pipeline.corpus.splits import DROPPED, Plan, plan_splits
from pipeline.corpus.spool import Index, Spool, cleaned, id_at, is_spooled, read_index, write_documents
from pipeline.corpus.store import DOCUMENTS, LABELS
from pipeline.errors import DataError, InputError, UsageError
from pipeline.making import StageOutcome
from pipeline.progress import Reporter
from pipeline.settings import PrepareCorpusSettings
from pipeline.stage import Source, StageContext

_PROGRESS_EVERY = 500


def locate_source(
    settings: PrepareCorpusSettings, sealed: Manifest | None, home: Path, reporter: Reporter
) -> Source | None:
    """The source of the corpus, downloaded if it has to be; see `pipeline.corpus.source.locate`."""
    return sources.locate(settings, sealed, home, reporter)


def run(context: StageContext) -> StageOutcome:
    """Make the corpus. Raises InputError, DataError or UsageError; see the policies for which."""
    settings: PrepareCorpusSettings = context.settings
    source = _source_with_data(context)
    parts = parts_of(settings, source.path)
    for half in context.resume.glob("spool-*.parquet.*"):
        half.unlink()  # of an attempt that was killed; in the folder of shares it may be another job's
    spools = _spool_parts(context, dict(enumerate(parts)), context.kept)
    mended = cleaned(spools)
    index = read_index(spools)
    _check_documents(index, spools, source.path or settings.kind, mended, has_ids=settings.id_column is not None)
    plan = plan_splits(index, settings)
    stopping.check("prepare_corpus")
    context.reporter.line("prepare_corpus: writing the documents by split")
    write_documents(context.work / DOCUMENTS, spools, index, plan.splits)
    labels = sorted(index.label_names[code] for code in np.unique(index.labels[plan.splits == TRAIN]) if code >= 0)
    (context.work / LABELS).write_text(json.dumps(labels, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    metrics = _metrics(index, plan, mended) | {"published_source": source.record.get("published")}
    _report(context.reporter, settings, metrics)
    return StageOutcome(metrics)


def run_share(context: StageContext, number: int, of: int) -> None:
    """Clean the tables of share `number` of `of`.

    Raises UsageError if the source is no folder of tables, and what reading raises.
    """
    assert context.parts is not None
    assert context.source is not None, "locate_source always gives a source"
    parts = parts_of(context.settings, context.source.path)
    if len(parts) == 1:
        raise UsageError(
            f"{context.source.path or context.settings.kind} is read in one go: only a folder of tables has shares.",
            "Leave out --shard, or write the texts as several .csv, .jsonl or .parquet files into one folder.",
        )
    _spool_parts(context, {i: parts[i] for i in range(number - 1, len(parts), of)}, context.parts)


def _source_with_data(context: StageContext) -> Source:
    """The source, fetched again if only its identity is known; it must then be what it was."""
    source = context.source
    assert source is not None, "locate_source always gives a source"
    if source.path is not None or sources.pinned_identity(context.settings) is not None:
        return source
    home = context.work.parents[2]
    found = sources.download(context.settings, home, context.reporter)
    if found.identity != source.identity:
        raise InputError(
            f"The corpus was made from {source.record['path']}, which is gone; the published file is another one.",
            "Give the source with --source PATH.",
        )
    return found


def _spool_parts(context: StageContext, parts: Mapping[int, Part], folder: Path) -> list[Path]:
    """The cleaned documents of each of `parts`, by its number, as a file in `folder`; one that is there is kept."""
    spools = [folder / f"spool-{number:06d}.parquet" for number in parts]
    with context.reporter.task("prepare_corpus: reading", None, "documents") as task:
        for path, part in zip(spools, parts.values(), strict=True):
            if is_spooled(path):
                continue
            with Spool(path, context.recipe.run.seed) as spool:
                for number, document in enumerate(part(), 1):
                    text = clean_text(document.text, spool.cleaned)
                    if text is not None:
                        spool.add(document, text)
                    if number % _PROGRESS_EVERY == 0:
                        task.advance(_PROGRESS_EVERY)
                        stopping.check("prepare_corpus")
    return spools


def _check_documents(
    index: Index, spools: Sequence[Path], where: Path | str, mended: Counter[str], *, has_ids: bool
) -> None:
    """DataError if there is no document, or an id twice; `has_ids`: they stand in a column."""
    if not len(index.splits):
        raise DataError(f"{where} holds no text ({mended['empty'] + mended['blank']} empty documents).")
    order = np.argsort(index.ranks, kind="stable")
    twice = order[1:][index.ranks[order][1:] == index.ranks[order][:-1]]
    if len(twice):
        raise DataError(
            f"{where} has the document id {id_at(spools, int(twice[0]))!r} more than once ({len(twice)} such "
            "documents).",
            "Ids must be unique; unset prepare_corpus.id_column to use row numbers." if has_ids
            else "Rename one of the files.",
        )


def _metrics(index: Index, plan: Plan, mended: Counter[str]) -> dict[str, Any]:
    """What the manifest says of the corpus; `duplicates` is told in `_duplicates`."""
    documents, labels, hashes, groups = {}, {}, {}, {}
    for number, name in enumerate(SPLITS):
        here = plan.splits == number
        if not here.any():
            continue
        documents[name] = int(here.sum())
        counts = zip(*np.unique(index.labels[here], return_counts=True), strict=True)
        by_label = {index.label_names[code]: int(n) for code, n in counts if code >= 0}
        if by_label:
            labels[name] = dict(sorted(by_label.items()))
        hashes[name] = index.text_hashes[here]
        groups[name] = len(np.unique(index.groups[here & (index.groups >= 0)]))
    kept = plan.splits != DROPPED
    metrics: dict[str, Any] = {
        "documents": documents,
        "labels": labels,
        "characters": int(index.n_chars[kept].sum(dtype=np.int64)),
        "duplicates": _duplicates(hashes) | {"dropped": plan.copies_dropped},
        "cleaned": {name: mended[name] for name in COUNTED},
        "without_label": plan.without_label,
        "beyond_limit": plan.beyond_limit,
    }
    return metrics | ({"groups": groups} if index.group_names else {})


def _duplicates(hashes: dict[str, Any]) -> dict[str, Any]:
    """`within`: surplus copies in a split; `across`: different texts that two splits share."""
    unique = {name: np.unique(values) for name, values in hashes.items()}
    return {
        "within": {name: len(values) - len(unique[name]) for name, values in hashes.items()},
        "across": {
            f"{one}/{other}": len(np.intersect1d(unique[one], unique[other], assume_unique=True))
            for one, other in combinations(hashes, 2)
        },
    }


def _report(reporter: Reporter, settings: PrepareCorpusSettings, metrics: dict[str, Any]) -> None:
    for split, n in metrics["documents"].items():
        labels = ", ".join(f"{name} {count:,}" for name, count in metrics["labels"].get(split, {}).items())
        reporter.line(f"  {split}: {n:,} documents{f' ({labels})' if labels else ''}")
    duplicates = metrics["duplicates"]
    counts = {**duplicates["within"], **duplicates["across"]}
    found = ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "none"
    reporter.line(f"  duplicates: {found}; dropped {duplicates['dropped']:,}")
    shared = duplicates["across"].get("train/test")
    if shared:
        reporter.line(f"  train has {shared:,} of the test texts too, as the source has them: accuracies count them")
    cleaned = ", ".join(f"{name} {n:,}" for name, n in metrics["cleaned"].items() if n)
    reporter.line(f"  cleaned: {cleaned or 'nothing'}")
    if metrics["without_label"]:
        missing = ", ".join(f"{name} {n:,}" for name, n in metrics["without_label"].items())
        reporter.line(f"  without a label: {missing} (of train: kept as unlabelled text)")
    if "valid" not in metrics["documents"]:
        reporter.line("  there is no valid split, which training needs: too few documents, or valid_fraction is 0")
    if metrics["labels"] and "test" not in metrics["documents"]:
        reporter.line("  there is no test split: evaluate_classifier will have nothing to score")
    if metrics["published_source"] is False:
        reporter.line(f"  the source is not the published {settings.kind} file; its SHA-256 is in the manifest")
