"""From what the sides reported to the figures of a case."""

import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from pipeline.benchmark.cases import DISTILBERT, FASTAI, MATMUL, OURS, Case
from pipeline.benchmark.harness import CaseFailed, Lab, Repeats, sides_at_hand

SAME_WORK = 1e-3
"""Relative difference of units that still counts as the same work: cleaning mends a few broken characters."""
HEAVY = ("torch", "fastai", "spacy", "pyarrow", "sklearn")
_DIGITS = 4


@dataclass(frozen=True)
class Result:
    """One line of the benchmark; None where a figure does not apply. `ratio` is how many times better ours is."""

    name: str
    ours: float | None = None
    fastai: float | None = None
    ratio: float | None = None
    unit: str = ""
    limit_share: float | None = None
    peak_mb_ours: float | None = None
    peak_mb_fastai: float | None = None
    more: dict[str, Any] = field(default_factory=dict)
    """Further figures of single cases, the data, and the error of a case that failed."""

    @property
    def failed(self) -> bool:
        """True if there was an error instead of figures."""
        return "error" in self.more

    def as_json(self) -> dict[str, Any]:
        """All figures, rounded."""
        figures = {
            "name": self.name, "ours": self.ours, "fastai": self.fastai, "ratio": self.ratio, "unit": self.unit,
            "limit_share": self.limit_share, "peak_mb_ours": self.peak_mb_ours, "peak_mb_fastai": self.peak_mb_fastai,
            **self.more,
        }
        return {key: _rounded(value) for key, value in figures.items()}


def measure(case: Case, lab: Lab) -> Result:
    """The figures of one case. Raises CaseFailed."""
    if case.runner == "startup":
        return _startup(case, lab)
    return _scale(case, lab) if case.runner == "scale" else _sides(case, lab)


def _sides(case: Case, lab: Lab) -> Result:
    sides = sides_at_hand(case, lab.sizes)
    found = lab.measure(case, sides, lab.sizes.repeats, {})
    ours, theirs = found[OURS], found[FASTAI]
    if not math.isclose(median(ours.units), median(theirs.units), rel_tol=SAME_WORK):
        raise CaseFailed(f"the sides did different work: {median(ours.units):g} and {median(theirs.units):g} units")
    value, other = _value(case.unit, ours), _value(case.unit, theirs)
    more: dict[str, Any] = {"repeats": lab.sizes.repeats, "data": _data(case, lab)}
    if case.unit == "ms":
        more |= {"p95_ours": _percentile_95(ours), "p95_fastai": _percentile_95(theirs)}
    if DISTILBERT in case.sides and lab.sizes.distilbert_share:
        third = _value(case.unit, found[DISTILBERT]) if DISTILBERT in found else None
        more |= {DISTILBERT: third, "ratio_distilbert": third and value / third}
        if third is None:
            lab.reporter.line(f"{case.name}: no DistilBERT, since transformers is not installed (extra `benchmark`)")
    share = None
    if MATMUL in found:
        share = value * ours.facts["flop_per_unit"] / _value("FLOP/s", found[MATMUL])
        more["precision"] = ours.facts["precision"]
    # A fork has not mapped the libraries that its parent loaded: it seems smaller than a process that loads them.
    alike = case.alike or not lab.sizes.forks
    return Result(
        case.name, value, other, other / value if case.unit == "ms" else value / other, case.unit, share,
        ours.peak_mb if alike else None, theirs.peak_mb if alike else None, more,
    )


def _value(unit: str, repeats: Repeats) -> float:
    """The median: of rates over repeats, of times over all single measurements."""
    if unit.endswith("/s"):
        return median(units / sum(seconds) for units, seconds in zip(repeats.units, repeats.seconds, strict=True))
    return 1000 * median(_all_seconds(repeats))


def _percentile_95(repeats: Repeats) -> float:
    return 1000 * quantiles(_all_seconds(repeats), n=20, method="inclusive")[-1]


def _all_seconds(repeats: Repeats) -> list[float]:
    return [second for seconds in repeats.seconds for second in seconds]


def _data(case: Case, lab: Lab) -> str:
    if not case.reads_source:
        return "generated reviews" if case.unit == "ms" else "generated ids"
    return f"{lab.source.name}" if lab.source else "generated reviews"


def _startup(case: Case, lab: Lab) -> Result:
    """Wall time of the whole process; it must import nothing heavy."""
    arguments = [sys.executable, "-m", "pipeline", *case.parameters["arguments"]]
    home = lab.folder / "home"
    home.mkdir(exist_ok=True)
    package = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])}
    told = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments[1:]], cwd=home, env=environment, capture_output=True, text=True,
        check=False,
    )
    if told.returncode:
        raise CaseFailed(f"it ended with code {told.returncode}: {told.stderr.strip().splitlines()[-1]}")
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines() if line.startswith("import time:")}
    heavy = [name for name in HEAVY if name in imported]
    if heavy:
        raise CaseFailed(f"it imports {', '.join(heavy)}")
    seconds, peak_mb = [], 0.0
    for _ in range(2 * lab.sizes.repeats):
        started = time.perf_counter()
        process = subprocess.Popen(arguments, cwd=home, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - started)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak_mb = max(peak_mb, usage.ru_maxrss / 1024)
    more = {"repeats": len(seconds), "imports_torch": False, "slowest": max(seconds)}
    return Result(case.name, median(seconds), unit=case.unit, peak_mb_ours=peak_mb, more=more)


def _scale(case: Case, lab: Lab) -> Result:
    """One stage of the three that run on the copies; all three are measured together."""
    from pipeline.benchmark.text_data import COPIES

    def run() -> dict[str, Repeats]:
        side = "pipeline.benchmark.text_ours:copies"
        names = {f"x{n}": n for n in COPIES}
        own = {name: {"copies": n} for name, n in names.items()}
        return lab.measure(case, dict.fromkeys(names, side), lab.sizes.scale_repeats, own)

    found: dict[str, Repeats] = lab.once("scale", run)
    stage = ("prepare", "tokenize", "numericalize").index(case.parameters["stage"])
    seconds = [median(taken[stage] for taken in repeats.seconds) for repeats in found.values()]
    peaks = [max(report["peaks_mb"][stage] for report in repeats.more) for repeats in found.values()]
    more = {
        "repeats": lab.sizes.scale_repeats, "data": _data(case, lab), "copies": list(COPIES), "seconds": seconds,
        "peaks_mb": peaks, "documents": [repeats.units[0] for repeats in found.values()],
        "time_growth": seconds[-1] / seconds[0], "memory_growth": peaks[-1] / peaks[0],
    }
    return Result(case.name, seconds[-1], unit=case.unit, peak_mb_ours=peaks[-1], more=more)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
