"""What runs in a child process: the code of one side, or of a preparation."""

import importlib
import multiprocessing
import os
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline import machine
from pipeline.benchmark.turns import Finished, Turns, Work
from pipeline.errors import PipelineError


def function_named(name: str) -> Any:
    """The function that module:function names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def run_side(function: str, work: Work, connection: Connection, log: Path) -> None:
    """Entry of a child: everything it prints goes to `log`, an error to the parent, last of all its peak memory."""
    with log.open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    # Python gives a child the start method of its parent; what runs here must have workers as its users have them.
    multiprocessing.set_start_method(None, force=True)
    warnings.simplefilter("ignore")
    os.chdir(work.own)
    machine.reset_peak_memory()
    turns = Turns(connection)
    try:
        side = function_named(function)
        turns.imported()
        side(turns, work)
        turns.wait()  # a preparation: done
    except Finished:
        turns.note_peak()
        connection.send({"peak_mb": turns.peak_mb})
    except EOFError:
        return  # the parent is gone
    except PipelineError as error:
        connection.send({"error": str(error)})
    except Exception as error:
        traceback.print_exc()
        connection.send({"error": f"{type(error).__name__}: {error}"})
