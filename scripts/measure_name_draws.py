"""What the ladder's classifiers of names reach under the protocol of their note (S6), beside that of our recipes.

The note draws a language, all alike, and then one of its names, a hundred times; it takes those lines out of training,
where equal names may stay. Each draw becomes a table with that split, a run NAME-DRAW of it below --home, and the
command `compare` on that. Validation, which the note has none of, is taken from training. Run it from anywhere:

    python scripts/measure_name_draws.py --source FOLDER --home HOME --rungs char-rnn-linear,char-lstm
"""

import argparse
import csv
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.cli import main as pipeline_main
from pipeline.corpus.documents import RawDocument
from pipeline.corpus.labelled_lines import read_names

TESTED = 100
"""Names that the note holds out."""


def drawn(documents: list[RawDocument], seed: int) -> set[str]:
    """The ids of TESTED documents: a language first, all alike, and then one of its lines that is left."""
    left: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        left[str(document.label)].append(document.doc_id)
    rng, languages = np.random.default_rng(seed), sorted(left)
    found: set[str] = set()
    while len(found) < TESTED:
        lines = left[languages[rng.integers(len(languages))]]
        found.add(lines.pop(int(rng.integers(len(lines)))))
    return found


def write_table(documents: list[RawDocument], tested: set[str], path: Path) -> float:
    """Write the split as a table; the share of the tested names that training has, too, in the same language."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "text", "label", "split"])
        for d in documents:
            table.writerow([d.doc_id, d.text, d.label, "test" if d.doc_id in tested else "train"])
    kept = {(d.label, d.text) for d in documents if d.doc_id not in tested}
    return statistics.fmean((d.label, d.text) in kept for d in documents if d.doc_id in tested)


def call(*arguments: str) -> None:
    """Run a command of the pipeline; what it cannot do ends this one."""
    sys.argv = ["pipeline", *arguments]
    try:
        pipeline_main()
    except SystemExit as error:
        if error.code:
            raise


def measure() -> None:
    """Draw, train, and print what each draw and rung gave, and the means over the draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="The folder or archive of the names.")
    parser.add_argument("--home", type=Path, required=True, help="Folder for the runs.")
    parser.add_argument("--rungs", default="char-rnn-linear,char-rnn-relu,char-lstm")
    parser.add_argument("--draws", type=int, default=3)
    given = parser.parse_args()
    documents = list(read_names(given.source))
    right: dict[str, list[float]] = defaultdict(list)
    given.home.mkdir(parents=True, exist_ok=True)
    for seed in range(given.draws):
        name = f"names-drawn-{seed}"
        table = given.home / f"{name}.csv"
        known = write_table(documents, drawn(documents, seed), table)
        call("run", "--recipe", "names", "--run", name, "--until", "numericalize_corpus", "--home", str(given.home),
             "--source", str(table), "--set", "prepare_corpus.kind=table", "--set", "prepare_corpus.split_column=split",
             "--set", "prepare_corpus.id_column=id", "--set", "prepare_corpus.test_documents=none")
        call("compare", "--on", name, "--rungs", given.rungs, "--home", str(given.home))
        compared = given.home / "models" / name / "ladder" / "compare.json"
        rows = json.loads(compared.read_text(encoding="utf-8"))["rungs"]
        for row in rows:
            right[row["rung"]].append(row["mean"]["accuracy"])
        told = ", ".join(f"{row['rung']} {TESTED * row['mean']['accuracy']:.0f}" for row in rows)
        print(f"draw {seed}: {100 * known:.0f} % of the names are in training, too; right of {TESTED}: {told}")
    for rung, shares in right.items():
        print(f"{rung}: {TESTED * statistics.fmean(shares):.1f} of {TESTED}, mean of {given.draws} draws")


if __name__ == "__main__":
    measure()
