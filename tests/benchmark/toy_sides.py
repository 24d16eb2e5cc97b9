"""Sides that take no time to warm: they write down when they work, use memory, idle, fail and die."""

import os
import sys
import time

import numpy as np

from pipeline.benchmark.turns import Turns, Work
from pipeline.errors import DataError


def note(turns: Turns, work: Work) -> None:
    """Writes its name at every turn, and tells how much processor time it took while it waited."""
    while True:
        before = time.process_time()
        turns.wait()
        idle_cpu_s = time.process_time() - before
        with (work.shared / "order.txt").open("a") as stream:
            stream.write(f"{work.parameters['name']} begins\n")
            stream.flush()
            time.sleep(0.15)
            stream.write(f"{work.parameters['name']} ends\n")
        turns.stop(work.parameters["units"], idle_cpu_s=idle_cpu_s)


def large(turns: Turns, work: Work) -> None:
    """Needs 300 MB for a moment."""
    while True:
        turns.wait()
        turns.stop(float(np.ones(300 * 2**17).sum() > 0), [0.1, 0.3, 0.2])


def small(turns: Turns, work: Work) -> None:
    """Needs next to nothing."""
    while True:
        turns.wait()
        turns.stop(1.0, [0.4, 0.8, 0.6])


def refuse(turns: Turns, work: Work) -> None:
    """Fails in its first repeat."""
    turns.wait()
    raise DataError("These reviews cannot be read.", "Take others.")


def die(turns: Turns, work: Work) -> None:
    """Ends without a word, like a process that was killed."""
    print("out of memory, goodbye", flush=True)
    os._exit(9)


def start_method(turns: Turns, work: Work) -> None:
    """Tells how its own workers would start."""
    import multiprocessing

    turns.tell(start_method=multiprocessing.get_start_method())
    small(turns, work)


def modules(turns: Turns, work: Work) -> None:
    """Tells whether its process has fastai."""
    turns.tell(fastai="fastai" in sys.modules)
    small(turns, work)


def prepare(turns: Turns, work: Work) -> None:
    """Counts how often it is called."""
    with (work.shared / "prepared.txt").open("a") as stream:
        stream.write("once\n")
