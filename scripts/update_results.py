"""Write docs/results.md and its picture from docs/results.json; `--check` only says if they are stale.

    python scripts/update_results.py --record imdb imdb-cpu --what "forwards"
    python scripts/update_results.py

`--record SECTION RUN` first keeps the figures of an evaluated run, out of its manifests, in docs/results.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import results, runs
from pipeline.picture import write_picture
from pipeline.progress import format_duration
from pipeline.report.evaluation_page import escape, table
from pipeline.report.summary import interval, percent, to_beat
from pipeline.storage import write_durably

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parents[1] / "docs"
RECORDS, PAGE, PICTURE = DOCS / "results.json", DOCS / "results.md", DOCS / "few-labels.svg"
SECTIONS = {
    "imdb": "IMDB on two cores",
    "sample": "The sample: film review snippets",
    "ablations": "What each part is worth",
    "few-labels": "Few labels",
}
ABOUT = {
    "imdb": "25,000 test reviews, read by the evaluation alone; no outside data. Everything was chosen on validation.",
    "sample": "Snippets of films that are in no other split.",
    "ablations": "Small models on 5,000 reviews of each split, one seed, all else equal.",
    "few-labels": "The same language model, the same test reviews; only so many labels are looked at. TF-IDF sees the "
    "same ones.",
}
FEW = {"pretrained": "with the language model", "random": "without it", "baseline": "TF-IDF"}
Record = dict[str, Any]


def record(section: str, name: str, home: Path, what: str, command: str | None) -> None:
    """Keep the figures of the run `name` in `section`, in place of earlier ones of the same name."""
    kept: dict[str, Any] = json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else {}
    rows = kept.setdefault("sections", {}).setdefault(section, [])
    for found in results.read_results([name], home):
        row = {**asdict(found), "what": what, "command": command or _command(name, home)}
        key = (found.run, found.slot)
        place = next((i for i, other in enumerate(rows) if (other["run"], other["slot"]) == key), len(rows))
        rows[place : place + 1] = [row]
    write_durably(RECORDS, json.dumps(kept, ensure_ascii=False, indent=1) + "\n")


def _command(name: str, home: Path) -> str:
    """The command line of a run, without the folders of the machine it ran on."""
    plan = runs.resolve(runs.Request(run=name, home=home))
    source = plan.request.source and Path(plan.request.source).name
    return replace(plan, request=replace(plan.request, source=source, home=Path())).command_line.command("run")


def page(kept: dict[str, Any]) -> str:
    """The whole page."""
    parts = [
        "# Results",
        "Every figure is out of a sealed manifest (`docs/results.json`, kept by `scripts/update_results.py`); "
        "intervals are 95 %, by bootstrap. Perplexity is per token of the model's own tokenizer, and a word model may "
        "answer \"unknown\": neither it nor the bits per character tell words from pieces.",
    ]
    for section, title in SECTIONS.items():
        rows = kept["sections"].get(section)
        if rows:
            parts += [f"## {title}", ABOUT[section], *_few_labels(rows)] if section == "few-labels" else [
                f"## {title}", ABOUT[section], _accuracies(rows), *_costs(rows), _commands(rows),
            ]
    return "\n\n".join(parts) + "\n"


def _accuracies(rows: Sequence[Record]) -> str:
    shown = [[*cells, "", "", ""] for cells in to_beat(rows[0]["metrics"])]
    for row in rows:
        random = (row["classifier"] or {}).get("encoder") == "random"  # then the language model gave nothing but sizes
        lm = {} if random else row["language_model"] or {}
        took = sum(stage["wall_s"] for stage in row["stages"])
        shown.append([
            f"`{row['run']}`: {escape(row['what'])}", percent(row["metrics"]["accuracy"]), interval(row["metrics"]),
            f"{lm['perplexity']:.1f}" if lm.get("perplexity") else "",
            f"{lm['bits_per_character']:.3f}" if lm.get("bits_per_character") else "", format_duration(took),
        ])
    return table(["", "accuracy on test", "95 % interval", "perplexity", "bits per character", "time"], shown)


def _costs(rows: Sequence[Record]) -> list[str]:
    """Time and memory of each stage of the first run, and what it ran on."""
    run, stages = rows[0]["run"], rows[0]["stages"]
    header = ["artifact", "time", "peak memory, MB"]
    cells = [[stage["role"], format_duration(stage["wall_s"]), f"{stage['peak_memory_mb']:,.0f}"] for stage in stages]
    places = [stage["hardware"] or "not recorded" for stage in stages]
    if len(set(places)) == 1:
        return [f"What the stages of `{run}` took (hardware: {places[0]}):", table(header, cells)]
    cells = [[*row, place] for row, place in zip(cells, places, strict=True)]
    return [f"What the stages of `{run}` took:", table([*header, "hardware"], cells)]


def _commands(rows: Sequence[Record]) -> str:
    return "\n".join(f"    {command}" for command in dict.fromkeys(row["command"] for row in rows))


def _few_labels(rows: Sequence[Record]) -> list[str]:
    found = few_labels(rows)
    shown = [
        [f"{n:,}", *(percent(found[n][kind]["accuracy"]) if kind in found[n] else "" for kind in FEW)]
        for n in sorted(found)
    ]
    return [
        table(["labelled reviews", *FEW.values()], shown),
        f"![Accuracy against labelled reviews, {', '.join(FEW.values())}; the figures are in the table.]"
        f"({PICTURE.name})",
        _commands(rows),
    ]


def few_labels(rows: Sequence[Record]) -> dict[int, dict[str, Any]]:
    """By the number of labels looked at: the metrics of each kind of classifier."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        metrics, classifier = row["metrics"], row["classifier"]
        n_labelled = classifier["labelled"] or classifier["train_documents"] + classifier["valid_documents"]
        kinds = found.setdefault(n_labelled, {})
        kinds[classifier["encoder"]] = metrics
        kinds["baseline"] = metrics["baseline"]
    return found


def draw_few_labels(rows: Sequence[Record], path: Path) -> None:
    """The curve of accuracy against labels, with intervals."""
    found = few_labels(rows)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for kind, name in FEW.items():
            numbers = [n for n in sorted(found) if kind in found[n]]
            accuracies = [100 * found[n][kind]["accuracy"] for n in numbers]
            spread = [[100 * abs(found[n][kind][end] - found[n][kind]["accuracy"]) for n in numbers]
                      for end in ("accuracy_low", "accuracy_high")]
            axes.errorbar(numbers, accuracies, yerr=spread, marker="o", capsize=2, label=name)
        axes.set_xscale("log")
        axes.set_xticks(sorted(found), [f"{n:,}" for n in sorted(found)])
        axes.minorticks_off()
        axes.set_xlabel("labelled reviews")
        axes.set_ylabel("accuracy on test, %")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False, loc="lower right")

    write_picture(path, (6.5, 4.0), draw)


def main() -> None:
    """Record a run if asked to; then write the page and its picture, or with --check exit 1 if it would change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="say if the page is stale, write nothing")
    parser.add_argument("--record", nargs=2, metavar=("SECTION", "RUN"), help=f"one of {', '.join(SECTIONS)}; a run")
    parser.add_argument("--what", default="", help="what is special about the run, in a few words")
    parser.add_argument("--command", help="the command that makes it; default: that of its recipe")
    parser.add_argument("--home", type=Path, default=Path(), help="folder that holds data/ and models/")
    asked = parser.parse_args()
    if asked.record:
        section, run = asked.record
        if section not in SECTIONS:
            parser.error(f"there is no section {section}: {', '.join(SECTIONS)}")
        record(section, run, asked.home, asked.what, asked.command)
    if not RECORDS.exists():
        parser.error(f"nothing is recorded yet in {RECORDS.relative_to(DOCS.parent)}: give --record SECTION RUN")
    kept = json.loads(RECORDS.read_text(encoding="utf-8"))
    text = page(kept)
    if asked.check:
        stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text
        sys.exit("docs/results.md is stale: python scripts/update_results.py" if stale else 0)
    write_durably(PAGE, text)
    if kept["sections"].get("few-labels"):
        draw_few_labels(kept["sections"]["few-labels"], PICTURE)


if __name__ == "__main__":
    main()
