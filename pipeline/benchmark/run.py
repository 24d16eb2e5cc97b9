"""The command: choose the cases, measure one after the other, print, and keep the figures for the README."""

import json
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmark import record
from pipeline.benchmark.cases import Case, select
from pipeline.benchmark.figures import Result, measure
from pipeline.benchmark.harness import Lab
from pipeline.benchmark.sizes import NAMED
from pipeline.errors import InputError, UsageError
from pipeline.progress import Reporter, format_duration


@dataclass(frozen=True)
class BenchmarkRequest:
    """What was asked for on the command line."""

    names: Sequence[str] = ()
    as_json: bool = False
    sizes: str = "full"
    source: Path | None = None
    record: bool = False


def benchmark(request: BenchmarkRequest, reporter: Reporter) -> bool:
    """Measure all cases that were asked for; True if none failed.

    Raises UsageError for names that there are not and for --record without a checkout, with less than full sizes, or
    beside figures of another machine; InputError for a source that is not there.
    """
    cases = select(request.names)
    if request.record and request.sizes != "full":
        raise UsageError("--record keeps full measurements only.", "Leave --quick out.")
    results_file = record.results_file() if request.record else None
    if results_file is not None:
        record.kept_beside(results_file, [case.name for case in cases])
    source = request.source.resolve() if request.source else None
    if source is not None and not source.is_file():
        raise InputError(f"There is no archive {request.source}.", "Give the IMDB archive with --source FILE.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the temporary folder and the children go in any case
    started = time.monotonic()
    results = []
    with Lab.open(NAMED[request.sizes], source, reporter) as lab:
        for case in cases:
            result = _measured(case, lab)
            results.append(result)
            if request.as_json:
                print(json.dumps(result.as_json(), ensure_ascii=False), flush=True)
    if not request.as_json:
        from pipeline.benchmark.table import print_table

        print_table(results)
    reporter.line(f"benchmark: {len(results)} cases in {format_duration(time.monotonic() - started)}")
    if results_file is not None:
        record.keep(results_file, results)
        reporter.line(f"benchmark: kept in {results_file}; then: python scripts/update_readme.py")
    return not any(result.failed for result in results)


def _measured(case: Case, lab: Lab) -> Result:
    """The figures of a case, or the error that kept it from having any."""
    try:
        return measure(case, lab)
    except Exception as error:
        lab.reporter.line(f"error: {case.name}: {error}")
        return Result(case.name, unit=case.unit, more={"error": str(error)})
