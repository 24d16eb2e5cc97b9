"""Write the generated parts of README.md from the definitions in `pipeline`; `--check` only says if they are stale."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import __version__
from pipeline.benchmark.record import machine_in_words
from pipeline.benchmark.table import number, share, times
from pipeline.errors import ExitCode
from pipeline.recipe import load_recipe, shipped_recipes
from pipeline.stage import ENSEMBLE, STAGES, Run

README = Path(__file__).resolve().parents[1] / "README.md"


def stages() -> str:
    """The table of stages: what each reads and writes."""
    run = Run("RUN", load_recipe("sample"), Path())
    rows = ["| stage | reads | writes | what it does |", "|---|---|---|---|"]
    for stage in (*STAGES, ENSEMBLE):
        gathered = [f"{stage.gathers} of each member"] if stage.gathers else []
        optional = [f"{slot} (optional)" for slot in stage.may_read]
        reads = ", ".join([*stage.reads, *optional, *gathered]) or "outside data"
        rows.append(f"| `{stage.name}` | {reads} | `{run.path(stage.writes)}` | {stage.summary} |")
    return "\n" + "\n".join(rows) + "\n"


def recipes() -> str:
    """The table of shipped recipes."""
    rows = ["| recipe | what it is for |", "|---|---|"]
    rows += [f"| `{name}` | {load_recipe(name).description} |" for name in shipped_recipes()]
    return "\n" + "\n".join(rows) + "\n"


def exit_codes() -> str:
    """The exit codes in one line."""
    return ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode) + "."


def faults() -> str:
    """What kills and damage did to this pipeline and to two trainers, as `scripts/fault_harness.py` recorded it."""
    results = json.loads((Path(__file__).parent / "faults" / "results.json").read_text(encoding="utf-8"))
    line = {**results["line"], "system": "this pipeline", "version": __version__}
    line |= {"corruptions": line["spoilt_checkpoints"], "bit_equal_after_signal": line["durable"]}
    rows = [
        "| | `kill -9`: recovered, bit-equal | of these inside a save | damaged checkpoint: loaded silently, "
        "fell back | asked to stop: a step lost at most, bit-equal |",
        "|---|---|---|---|---|",
    ]
    for found in (line, *results["rivals"]):
        rows.append(
            f"| {found['system']} {found['version']} "
            f"| {found['recovered']} and {found['bit_equal']} of {found['kills']} "
            f"| {found['recovered_in_save']} and {found['bit_equal_in_save']} of {found['kills_in_save']} "
            f"| {found['silent_loads']:,} and {found['fell_back']:,} of {found['corruptions']:,} "
            f"| {found['durable']} and {found['bit_equal_after_signal']} of {found['signals']} |"
        )
    return "\n" + "\n".join(rows) + "\n"


def benchmark() -> str:
    """The figures beside fastai's, as `python -m pipeline benchmark --record` kept them."""
    recorded = _recorded()
    fastai = recorded["versions"]["fastai"]
    rows = [
        f"| | this pipeline | fastai {fastai} | times | of the matmul limit | MB: ours, fastai | DistilBERT: times |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in recorded["cases"]:
        if case["fastai"] is not None:
            rows.append(
                f"| `{case['name']}`, {case['unit']} | {number(case['ours'])} | {number(case['fastai'])} "
                f"| {times(case['ratio'])} | {share(case['limit_share'])} "
                f"| {number(case['peak_mb_ours'])}, {number(case['peak_mb_fastai'])} "
                f"| {times(case.get('ratio_distilbert'))} |"
            )
    return "\n" + "\n".join(rows) + "\n"


def benchmark_notes() -> str:
    """The machine, and the figures that fastai has no counterpart for."""
    recorded = _recorded()
    cases, machine = {case["name"]: case for case in recorded["cases"]}, recorded["machine"]
    data = sorted({case["data"] for case in cases.values() if "data" in case})
    notes = [
        f"Last measured {max(case['date'] for case in cases.values())} on {machine_in_words(machine)}, "
        f"torch threads {machine['threads']}; data: {', '.join(data)}."
    ]
    if "startup-status" in cases:
        notes.append(f"`status` answers in {number(cases['startup-status']['ours'])} s.")
    if "scale-prepare" in cases and "scale-tokenize" in cases:
        grown = max(cases[f"scale-{stage}"]["memory_growth"] for stage in ("prepare", "tokenize"))
        notes.append(f"Preparing and tokenizing 16 copies of the data takes {grown:.2f} times the memory of one.")
    return " ".join(notes)


def _recorded() -> Any:
    return json.loads((Path(__file__).parent / "benchmark" / "results.json").read_text(encoding="utf-8"))


def updated(text: str) -> str:
    """`text` with every generated part written anew."""
    parts = {
        "stages": stages, "recipes": recipes, "exit-codes": exit_codes, "faults": faults, "benchmark": benchmark,
        "benchmark-notes": benchmark_notes,
    }
    for name, part in parts.items():
        opening = f"<!-- generated: {name} -->"
        before, found, rest = text.partition(opening)
        _, closed, after = rest.partition("<!-- end -->")
        if not found or not closed:
            raise SystemExit(f"README.md has no part {opening}")
        text = before + opening + part() + closed + after
    return text


def main() -> None:
    """Write README.md, or with --check exit 1 if it would change."""
    before = README.read_text(encoding="utf-8")
    after = updated(before)
    if "--check" in sys.argv[1:]:
        sys.exit("README.md is stale: python scripts/update_readme.py" if after != before else 0)
    README.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
