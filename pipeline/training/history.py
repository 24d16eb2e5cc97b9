"""The history of a training stage: one record per epoch, as JSON lines and CSV."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def epochs_without_gain(records: Sequence[Record], is_better: Callable[[Record, Record], bool]) -> int:
    """How many of `records`, the epochs of a phase, came after the best of them."""
    best = 0
    for i, record in enumerate(records):
        if is_better(record, records[best]):
            best = i
    return len(records) - 1 - best


def read_history(path: Path) -> list[Record]:
    """The records of a history.jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_history(records: Sequence[Record], folder: Path) -> None:
    """Write history.jsonl and history.csv."""
    (folder / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    with (folder / "history.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)
