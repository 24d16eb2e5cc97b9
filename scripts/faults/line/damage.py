"""Flipped bytes, cut and deleted files: in the checkpoints of a stopped stage and in sealed artifacts."""

import random
import shutil
from collections import Counter
from pathlib import Path

from faults.line.bench import PRECISIONS, STAGES, TIMEOUT_S, Bench
from pipeline.artifact import MANIFEST, hash_file, open_artifact
from pipeline.attempt import unfinished
from pipeline.errors import InputError
from pipeline.progress import Reporter
from pipeline.training.checkpoints import CheckpointStore

RESUME = Path("models/smoke/.lm-fwd.partial/resume")
SLOTS = ("corpus", "tokens", "ids", "lm", "classifier", "evaluation")


def stopped_home(bench: Bench, precision: str) -> Path:
    """A run that was killed in the middle of its language model, with two checkpoints."""
    home = bench.new_home(f"stopped-{precision}")
    for victim in range(bench.unbroken[precision].saves // 3, 0, -1):
        bench.start(home, precision, FAULT_SAVE=f"{victim}:before-1").wait(TIMEOUT_S)
        if len(list((home / RESUME / "checkpoints").glob("checkpoint-*"))) == 2:
            return home
        home = bench.new_home(home.name)
    raise RuntimeError("no kill left two checkpoints of the language model behind")


def spoil(path: Path, rng: random.Random, how: str) -> None:
    """Flip one bit of a file, cut it at a random length, or delete it."""
    if how == "delete":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    if how == "flip":
        data[at] ^= 1 << rng.randrange(8)
    else:
        del data[at:]
    path.write_bytes(bytes(data))


def spoil_checkpoints(bench: Bench, flips: int, cuts: int) -> Counter[str]:
    """Spoil a random file of the newest checkpoint again and again, and ask for the newest valid one each time.

    `silent_loads`: the spoilt one was taken. `fell_back`: the one before it was, with a message.
    """
    count: Counter[str] = Counter()
    home = stopped_home(bench, "fp32")
    attempt = unfinished(home / "models/smoke/lm-fwd")
    assert attempt is not None
    original = home / RESUME / "checkpoints"
    files = sorted(path.relative_to(original) for path in max(original.glob("checkpoint-*")).rglob("*.*"))
    for number in range(flips + cuts + len(files)):
        how = "flip" if number < flips else "cut" if number < flips + cuts else "delete"
        file = files[number - flips - cuts] if how == "delete" else bench.rng.choice(files)
        folder = bench.new_home("spoilt")
        shutil.copytree(original, folder)
        spoil(folder / file, bench.rng, how)
        said = _Said()
        taken = CheckpointStore(folder, attempt.fingerprint, keep=2, reporter=said).newest()
        count["corruptions"] += 1
        spoilt = folder / file.parts[0]
        count["silent_loads"] += taken == spoilt
        count["fell_back"] += taken is not None and taken != spoilt and spoilt.name in said.text
    return count


def run_on_damage(bench: Bench, trials: int) -> Counter[str]:
    """Spoil the newest checkpoint of a stopped run and give the same command again: it must end as if unbroken."""
    count: Counter[str] = Counter()
    homes = {precision: stopped_home(bench, precision) for precision in PRECISIONS}
    for number in range(trials):
        precision = PRECISIONS[number % 3]
        home = bench.new_home("damaged-run")
        shutil.copytree(homes[precision], home)
        newest = max((home / RESUME / "checkpoints").glob("checkpoint-*"))
        spoil(bench.rng.choice(sorted(newest.iterdir())), bench.rng, bench.rng.choice(("flip", "cut", "delete")))
        code = bench.start(home, precision).wait(TIMEOUT_S)
        said = f"checkpoint {newest.name} is not used" in (home / "log.txt").read_text(encoding="utf-8")
        count["corruptions"] += 1
        count["fell_back"] += code == 0 and said and bench.equals_unbroken(home, precision)
        count["silent_loads"] += code == 0 and not said
    return count


def spoil_artifacts(bench: Bench, flips: int, cuts: int) -> Counter[str]:
    """Spoil random files of sealed artifacts and open them: every one must be refused, by name."""
    count: Counter[str] = Counter()
    home = bench.unbroken["fp32"].home
    for number in range(flips + cuts):
        folder = bench.rng.choice(list(STAGES.values()))
        slot = SLOTS[list(STAGES.values()).index(folder)]
        copy = bench.new_home("spoilt-artifact")
        shutil.copytree(home / folder, copy)
        file = bench.rng.choice(sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size))
        before = hash_file(file)
        spoil(file, bench.rng, "flip" if number < flips else "cut")
        try:
            artifact = open_artifact(copy, slot)
        except InputError as error:
            refused = str(copy) in str(error)
        else:
            # White space between the fields of the manifest may change without changing what it says.
            refused = file.name == MANIFEST and artifact.manifest.is_intact() and before != hash_file(file)
            count["harmless"] += refused
        count["corruptions"] += 1
        count["silent_loads"] += not refused
    return count


class _Said(Reporter):
    """A reporter that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def line(self, text: str) -> None:
        self.text += text + "\n"
