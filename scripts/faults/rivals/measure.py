"""Count what faults do to training with fastai and with Hugging Face Trainer, for the table in the README.

    PYTHONPATH=scripts python -m faults.rivals.measure --kills 20 --corruptions 20 --signals 10 --json

Needs the extra `faults` (transformers, accelerate); without it only fastai is measured. What is counted:

kills        half of them `kill -9` at a random time of the run, half inside a save, at a byte drawn evenly from all
             the bytes that a run saves; `..._in_save` counts that half alone
recovered    the same command, given at most five times, ended with exit code 0 and a final model
bit_equal    and the final weights are those of the unbroken run, by sha256
steps_lost   finished training steps that were done again, in the recovered runs
corruptions  in a stopped run with two or more checkpoints the newest weights file has one byte changed (half) or is
             cut at a random length (half). Each is one of: `silent_loads` (exit 0, no complaint, another final model
             than from the undamaged file), `warned` (the same with a complaint in the output), `harmless` (the same
             final model: nothing read that byte), `fell_back` (went on from an older checkpoint), `crashed` (exit
             code not 0 at every attempt)
signals      SIGTERM at a random time in the first half of a run three times as long. `durable`: the same command
             then ends with a final model, and at most one step is done again
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import random
import re
import signal
import statistics
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from faults.rivals.trials import Bench, Outcome, Rival, Unbroken, flip_a_byte, place_in_saves, truncate
from faults.warm import Warm

SIGNAL_STRETCH = 3  # transformers waits 3 s after SIGTERM before it saves; a short run would be over by then
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def fastai_weights(run: Path, save_every: int) -> dict[int, Path]:
    """Checkpoints are named after their epoch, and an epoch has `save_every` steps."""
    return {
        (int(path.stem.removeprefix("model_")) + 1) * save_every: path for path in run.glob("models/model_*.pth")
    }


def transformers_weights(run: Path, save_every: int) -> dict[int, Path]:
    """Checkpoint folders are named after their step."""
    return {
        int(path.parent.name.removeprefix("checkpoint-")): path
        for path in run.glob("checkpoints/checkpoint-*/model.safetensors")
    }


RIVALS = (
    Rival(
        "fastai", "fastai", "faults.rivals.fastai_job:main",
        "AWD_LSTM; SaveModelCallback(every_epoch=True, with_opt=True); learn.load of the newest file, then "
        "fit_one_cycle(start_epoch=...); resumes at epochs by design",
        fastai_weights,
    ),
    Rival(
        "Hugging Face Trainer", "transformers", "faults.rivals.transformers_job:main",
        "GPT-2; save_strategy=steps, save_total_limit=2, enable_jit_checkpoint=True; "
        "train(resume_from_checkpoint=get_last_checkpoint(output_dir))",
        transformers_weights,
    ),
)


def measure(bench: Bench, kills: int, corruptions: int, signals: int, rng: random.Random) -> dict[str, Any]:
    """All faults against one rival."""
    rival = bench.rival
    unbroken = bench.unbroken()
    again = bench.unbroken()
    deterministic = (unbroken.weights, unbroken.optimizer) == (again.weights, again.optimizer)
    print(f"{rival.system}: unbroken {again.duration_s:.1f} s, weights {unbroken.weights[:12]}, "
          f"two unbroken runs {'are' if deterministic else 'ARE NOT'} bit-equal", flush=True)
    return {
        "system": rival.system,
        "version": importlib.metadata.version(rival.package),
        "unbroken_bit_equal": deterministic,
        **kill_counts(bench, again, kills, rng),
        **corruption_counts(bench, corruptions, rng),
        **signal_counts(bench, again.duration_s, signals, rng),
        "settings": f"{rival.settings}; {bench.steps} steps, a checkpoint every {bench.save_every}",
    }


def kill_counts(bench: Bench, unbroken: Unbroken, kills: int, rng: random.Random) -> dict[str, Any]:
    """Half at random times, half inside saves."""
    outcomes: list[Outcome] = []
    n_in_save = kills // 2
    while len(outcomes) < kills:
        if len(outcomes) < n_in_save:
            save, byte = place_in_saves(unbroken.save_sizes, rng)
            where, outcome = f"in save {save} at byte {byte}", bench.killed_in_save(save, byte)
        else:
            delay_s, outcome = signalled(bench, signal.SIGKILL, unbroken.duration_s, rng)
            where = f"after {delay_s:.2f} s"
        outcomes.append(outcome)
        equal = outcome.weights == unbroken.weights
        what = f"recovered, {outcome.steps_lost} steps lost, bit-equal: {equal}" if outcome.recovered else "crashed"
        tell(bench, f"kill {len(outcomes)}/{kills} {where}", what, outcome)
    in_save = outcomes[:n_in_save]
    lost = [outcome.steps_lost for outcome in outcomes if outcome.recovered]
    return {
        "kills": kills,
        "recovered": sum(outcome.recovered for outcome in outcomes),
        "bit_equal": sum(outcome.weights == unbroken.weights for outcome in outcomes),
        "median_steps_lost": statistics.median(lost) if lost else None,
        "max_steps_lost": max(lost, default=None),
        "kills_in_save": n_in_save,
        "recovered_in_save": sum(outcome.recovered for outcome in in_save),
        "bit_equal_in_save": sum(outcome.weights == unbroken.weights for outcome in in_save),
        "crash_messages": messages([outcome for outcome in outcomes if not outcome.recovered]),
    }


def corruption_counts(bench: Bench, corruptions: int, rng: random.Random) -> dict[str, Any]:
    """Half flipped bytes, half truncations, of the newest weights file of one stopped run."""
    kinds: Counter[str] = Counter()
    crashes = []
    if corruptions:
        stopped, newest = bench.stopped()
        undamaged = bench.resumed(stopped)
        if undamaged.resumed_after != newest or undamaged.complaint:
            raise RuntimeError(f"the undamaged run did not resume after step {newest}: {undamaged}")
        for number in range(corruptions):
            damage = (flip_a_byte, truncate)[number % 2]
            outcome = bench.resumed(stopped, partial(damage, rng=rng))
            kind = kind_of(outcome, undamaged)
            kinds[kind] += 1
            if kind == "crashed":
                crashes.append(outcome)
            tell(bench, f"corruption {number + 1}/{corruptions} {damage.__name__}", kind, outcome)
    counts = {kind: kinds[kind] for kind in ("silent_loads", "warned", "harmless", "crashed", "fell_back")}
    return {"corruptions": corruptions, **counts, "corruption_messages": messages(crashes)}


def kind_of(outcome: Outcome, undamaged: Outcome) -> str:
    """What a rival made of a damaged file."""
    if not outcome.recovered:
        return "crashed"
    if outcome.resumed_after < undamaged.resumed_after:
        return "fell_back"
    if outcome.weights == undamaged.weights:
        return "harmless"
    return "warned" if outcome.complaint else "silent_loads"


def signal_counts(bench: Bench, duration_s: float, signals: int, rng: random.Random) -> dict[str, Any]:
    """SIGTERM in the first half of longer runs."""
    outcomes = []
    weights = bench.unbroken(SIGNAL_STRETCH).weights if signals else ""
    for number in range(signals):
        delay_s, outcome = signalled(bench, signal.SIGTERM, duration_s * SIGNAL_STRETCH / 2, rng, SIGNAL_STRETCH)
        outcomes.append(outcome)
        tell(bench, f"signal {number + 1}/{signals} after {delay_s:.2f} s",
             f"exit code {outcome.first_exit}, {outcome.steps_lost} steps lost", outcome)
    lost = [outcome.steps_lost for outcome in outcomes if outcome.recovered]
    return {
        "signals": signals,
        "durable": sum(outcome.recovered and outcome.steps_lost <= 1 for outcome in outcomes),
        "bit_equal_after_signal": sum(outcome.weights == weights for outcome in outcomes),
        "median_steps_lost_to_signal": statistics.median(lost) if lost else None,
        "signal_exit_codes": dict(Counter(str(outcome.first_exit) for outcome in outcomes)),
    }


def signalled(
    bench: Bench, sig: signal.Signals, within_s: float, rng: random.Random, stretch: int = 1
) -> tuple[float, Outcome]:
    """A signal at a random time, drawn again if the run is over by then: the delay and the outcome."""
    while True:
        delay_s = rng.uniform(0, within_s)
        if outcome := bench.signalled_at(sig, delay_s, stretch):
            return delay_s, outcome


def messages(crashes: list[Outcome]) -> dict[str, int]:
    """The last lines of crashed processes, with N for numbers, and their counts."""
    return dict(Counter(re.sub(r"\d+", "N", crash.complaint)[:160] for crash in crashes))


def tell(bench: Bench, fault: str, what: str, outcome: Outcome) -> None:
    note = f" ({outcome.complaint[:120]})" if outcome.complaint else ""
    print(f"{bench.rival.system}: {fault}: {what}{note}", flush=True)


def measure_all(
    kills: int, corruptions: int, signals: int, seed: int, *, only: str | None = None, steps: int = 200,
    save_every: int = 25,
) -> list[dict[str, Any]]:
    """The counts of every rival that is installed."""
    os.environ.update(ENVIRONMENT)
    results = []
    for rival in RIVALS:
        if only not in (None, rival.package):
            continue
        if importlib.util.find_spec(rival.package) is None:
            print(f"{rival.system}: skipped, {rival.package} is not installed (pip install -e '.[faults]')")
            continue
        with Warm(rival.target) as warm, tempfile.TemporaryDirectory() as folder:
            bench = Bench(rival, warm, Path(folder), steps, save_every)
            rng = random.Random(f"{seed} {rival.system}")
            results.append(measure(bench, kills, corruptions, signals, rng))
    return results


def main() -> None:
    """Measure what is installed; with --json the last line is a JSON list of one object each."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--corruptions", type=int, default=20)
    parser.add_argument("--signals", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200, help="training steps of a run; four checkpoints or more")
    parser.add_argument("--save-every", type=int, default=25, help="steps from checkpoint to checkpoint")
    parser.add_argument("--only", choices=[rival.package for rival in RIVALS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = measure_all(
        args.kills, args.corruptions, args.signals, args.seed, only=args.only, steps=args.steps,
        save_every=args.save_every,
    )
    print(json.dumps(results) if args.json else json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
