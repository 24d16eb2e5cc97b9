"""A tiny corpus, the run on it that nothing disturbs, and the question whether another run ended like it."""

import csv
import json
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.warm import Child, Warm

FOLDERS = {
    "prepare_corpus": "data/{run}/corpus", "tokenize_corpus": "data/{run}/tokens",
    "numericalize_corpus": "data/{run}/ids", "finetune_lm": "models/{run}/lm-fwd",
    "train_classifier": "models/{run}/classifier-fwd", "evaluate_classifier": "models/{run}/evaluation",
}
STAGES = {stage: folder.format(run="smoke") for stage, folder in FOLDERS.items()}
PRECISIONS = ("fp32", "bf16", "fp16")
WORDS = {"good": ["warm", "witty", "moving", "clever", "superb"], "bad": ["dull", "clumsy", "tedious", "stale", "weak"]}
NOUNS = ["plot", "cast", "music", "ending", "camera", "story"]
TIMEOUT_S = 300.0
MAX_RESTARTS = 5
PRELOAD = (*(f"pipeline.stages.{stage}" for stage in STAGES), "pipeline.corpus.readers", "pipeline.text.subword")
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Unbroken:
    """A run that nothing disturbed."""

    home: Path
    seconds: float
    started: dict[str, float]
    """When each stage started, in seconds."""
    saves: int


class Bench:
    """Runs the line on the tiny corpus, in processes forked from one that has imported everything."""

    def __init__(self, folder: Path, warm: Warm, seed: int) -> None:
        self.folder, self.warm, self.rng = folder, warm, random.Random(seed)
        self.table = folder / "reviews.csv"
        write_reviews(self.table, self.rng)
        self.unbroken = {precision: self._run_unbroken(precision) for precision in PRECISIONS}

    def arguments(self, precision: str) -> list[str]:
        """What the same command is made of; checkpoints every other step, so that there are many saves."""
        settings = {
            "prepare_corpus.split_column": "split", "run.device": "cpu", "run.precision": precision,
            "run.allow_fp16_on_cpu": "true", "tokenize_corpus.workers": "1", "finetune_lm.checkpoint_steps": "2",
            "train_classifier.checkpoint_steps": "2", "evaluate_classifier.bs": "4", "finetune_lm.log_every": "1",
        }
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return ["run", "--recipe", "smoke", "--source", str(self.table), *sets]

    def start(self, home: Path, precision: str, **environment: str) -> Child:
        """Start the run, or go on with it."""
        home.mkdir(parents=True, exist_ok=True)
        return self.warm.start(self.arguments(precision), cwd=home, log_path=home / "log.txt", env=environment)

    def finish(self, home: Path, precision: str) -> int:
        """Give the same command until it ends with 0; how often that took, 0 if it never did."""
        for attempt in range(1, MAX_RESTARTS + 1):
            if self.start(home, precision).wait(TIMEOUT_S) == 0:
                return attempt
        return 0

    def new_home(self, name: str) -> Path:
        """An empty folder."""
        home = self.folder / name
        shutil.rmtree(home, ignore_errors=True)
        return home

    def equals_unbroken(self, home: Path, precision: str) -> bool:
        """True if every artifact is byte for byte that of the unbroken run, but for what a clock says."""
        return same_result(home, self.unbroken[precision].home, "smoke")

    def _run_unbroken(self, precision: str) -> Unbroken:
        home, saves = self.new_home(f"unbroken-{precision}"), self.folder / "saves.txt"
        started: dict[str, float] = {}
        begin = time.monotonic()
        child = self.start(home, precision, FAULT_SAVES=str(saves))
        while child.poll() is None:
            log = child.output()
            for stage in STAGES:
                if stage not in started and f"{stage}: starting" in log:
                    started[stage] = time.monotonic() - begin
            time.sleep(0.005)
        if child.wait(0) != 0:
            raise RuntimeError(f"the undisturbed run failed:\n{child.output()}")
        return Unbroken(home, time.monotonic() - begin, started, int(saves.read_text(encoding="utf-8")))


def same_result(one: Path, other: Path, run: str) -> bool:
    """True if all artifacts of a run are the same in two homes, but for what a clock says."""
    folders = [folder.format(run=run) for folder in FOLDERS.values()]
    return all(content(one / folder) == content(other / folder) for folder in folders)


def content(folder: Path) -> dict[str, Any]:
    """What an artifact holds: the SHA-256 of its files, and its history without what a clock says."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"missing": str(folder)}
    files = {name: record["sha256"] for name, record in manifest["files"].items() if not name.startswith("history.")}
    history = folder / "history.jsonl"
    records = [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []
    kept = [{key: value for key, value in record.items() if not key.endswith("_s")} for record in records]
    return {"fingerprint": manifest["fingerprint"], "files": files, "history": kept}


def leftovers(home: Path) -> list[str]:
    """Temporary files and folders that a finished run should not have."""
    endings = (".partial", ".replaced", ".tmp", ".owner.json")
    return [str(path) for path in home.rglob(".*") if path.name.endswith(endings)]


def write_reviews(path: Path, rng: random.Random, n: int = 150) -> None:
    """A CSV file of sentences whose words tell their label; a fifth is the test split."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label", "split"])
        for number in range(n):
            label = ("good", "bad")[number % 2]
            words = [f"the {rng.choice(NOUNS)} is {rng.choice(WORDS[label])}" for _ in range(rng.randint(1, 6))]
            writer.writerow([f"{number}. {', '.join(words)}", label, "test" if number % 5 == 0 else "train"])


def ended_by(code: int) -> bool:
    """True if a job was ended by the fault and not by itself."""
    return code in (-signal.SIGKILL, -signal.SIGALRM)
