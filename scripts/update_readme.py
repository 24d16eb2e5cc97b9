"""Write the generated parts of README.md and docs/cluster.md from definitions and recorded measurements.

`--check` only says if they are stale.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import __version__
from pipeline.benchmark.flop import of_language_model_token
from pipeline.benchmark.sizes import VOCABULARIES, WORD_LSTM
from pipeline.benchmark.table import number, share, times
from pipeline.errors import ExitCode
from pipeline.hardware import machine_in_words
from pipeline.model.architecture import Architecture
from pipeline.recipe import load_recipe, shipped_recipes
from pipeline.stage import ENSEMBLE, STAGES, Run

ROOT = Path(__file__).resolve().parents[1]
README, CLUSTER = ROOT / "README.md", ROOT / "docs" / "cluster.md"
IMDB_REVIEWS, IMDB_MB, IMDB_TOKENS = 100_000, 133.0, 29_924_423
"""All of IMDB, its text in UTF-8, and its tokens in words, of the manifests of the recipe imdb."""
CORPUS_SHARE, TOKEN_BYTES, ID_BYTES = 0.43, 4.13, 2.08
"""Of the same: the corpus as a share of its text; a token in tokens, and in ids of at most 65,536 words."""
SHARES, WORTH_SHARES_S = 50, 1800
GPU_TFLOP_S = 50
"""An assumption: what a GPU keeps up in the products of a step; none was measured."""


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


def sizing() -> str:
    """What a corpus of so much text takes, reckoned from the benchmark's rates."""
    cases = {case["name"]: case for case in _recorded()["cases"]}
    prepare_mb_s = cases["archive"]["ours"] * IMDB_MB / IMDB_REVIEWS
    tokens_s, step_tokens_s = cases["tokenize"]["ours"], cases["lm-step-60k"]["ours"]
    rows = [
        f"| text | tokens | prepare | tokenize | in {SHARES} shares | disk | an epoch on these two cores "
        f"| at {GPU_TFLOP_S} TFLOP/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, mb in (("100 MB", 1e2), ("1 GB", 1e3), ("10 GB", 1e4), ("100 GB", 1e5), ("1 TB", 1e6)):
        tokens = mb / IMDB_MB * IMDB_TOKENS
        disk_mb = mb * CORPUS_SHARE + tokens * (TOKEN_BYTES + ID_BYTES) / 1e6
        tokenize_s = tokens / tokens_s
        cells = [
            f"{tokens / 1e6:,.0f} M", _rough_duration(mb / prepare_mb_s), _rough_duration(tokenize_s),
            _rough_duration(tokenize_s / SHARES) if tokenize_s > WORTH_SHARES_S else "",
            f"{disk_mb / 1e3:,.1f} GB", _rough_duration(tokens / step_tokens_s),
            _rough_duration(tokens * _flop_per_token() / (GPU_TFLOP_S * 1e12)),
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n" + "\n".join(rows) + "\n"


def sizing_notes() -> str:
    """Where the figures of `sizing` come from."""
    cases = {case["name"]: case for case in _recorded()["cases"]}
    prepare, tokenize = cases["scale-prepare"], cases["scale-tokenize"]
    step = cases["lm-step-60k"]
    archive, words, machine = cases["archive"]["ours"], cases["tokenize"]["ours"], _recorded()["machine"]

    def grown(case: dict[str, Any]) -> str:
        mb = " to ".join(number(case["peaks_mb"][i]) for i in (0, -1))
        return f"{times(case['time_growth'])}, its peak memory from {mb} MB"

    return (
        f"Reckoned, not measured, above {IMDB_MB:.0f} MB of text (all of IMDB), at the rates of the benchmark on "
        f"{machine_in_words(machine)} (README.md): {number(archive)} documents a second out of an archive, "
        f"{number(words)} tokens/s in words, {number(step['ours'])} tokens/s in training "
        f"({share(step['limit_share'])} of what the processor multiplies). From {prepare['documents'][0]:,} to "
        f"{prepare['documents'][-1]:,} reviews ({times(prepare['copies'][-1] / prepare['copies'][0])}, copies, "
        f"so no new words) the time of prepare_corpus grew {grown(prepare)}; "
        f"that of tokenize_corpus {grown(tokenize)}. Both also have a start."
    )


def sizing_formula() -> str:
    """The formula of a training step, with the sizes of the recipe imdb put in."""
    emb_sz, n_hid, n_layers = WORD_LSTM
    return (
        f"FLOP per token = 6 x (LSTM weights + emb_sz x vocabulary): {_flop_per_token() / 1e6:.0f} million at "
        f"{emb_sz}/{n_hid}/{n_layers} and {VOCABULARIES['lm-step-60k']:,} words. Seconds per million tokens = that / "
        f"(TFLOP/s that the device keeps up): {_flop_per_token() / GPU_TFLOP_S / 1e6:.1f} at {GPU_TFLOP_S}."
    )


def _flop_per_token() -> int:
    return of_language_model_token(Architecture(VOCABULARIES["lm-step-60k"], *WORD_LSTM))


def _rough_duration(seconds: float) -> str:
    """Two figures are all that a reckoning is good for."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:.2g} h" if seconds < 72 * 3600 else f"{seconds / 86400:,.0f} days"


PAGES = {
    README: {
        "stages": stages, "recipes": recipes, "exit-codes": exit_codes, "faults": faults, "benchmark": benchmark,
        "benchmark-notes": benchmark_notes,
    },
    CLUSTER: {"sizing": sizing, "sizing-notes": sizing_notes, "sizing-formula": sizing_formula},
}


def updated(page: Path) -> str:
    """The text of `page` with every generated part written anew."""
    text = page.read_text(encoding="utf-8")
    for name, part in PAGES[page].items():
        opening = f"<!-- generated: {name} -->"
        before, found, rest = text.partition(opening)
        _, closed, after = rest.partition("<!-- end -->")
        if not found or not closed:
            raise SystemExit(f"{page.name} has no part {opening}")
        text = before + opening + part() + closed + after
    return text


def main() -> None:
    """Write the pages, or with --check exit 1 if one would change."""
    for page in PAGES:
        after = updated(page)
        if "--check" not in sys.argv[1:]:
            page.write_text(after, encoding="utf-8")
        elif page.read_text(encoding="utf-8") != after:
            sys.exit(f"{page.relative_to(ROOT)} is stale: python scripts/update_readme.py")


if __name__ == "__main__":
    main()
