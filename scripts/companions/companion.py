"""What the companions share: their options, where their results go, and how an expected error ends.

It is imported before the package `pipeline`, which it finds where that is not installed.
"""

import argparse
import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.errors import DataError, InputError, PipelineError
from pipeline.progress import printable
from pipeline.report.summary import aligned
from pipeline.storage import write_durably

_START = time.perf_counter()


def options(document: str | None, source: str) -> argparse.ArgumentParser:
    """The options of every companion; `source` tells what it reads, and what without it."""
    parser = argparse.ArgumentParser(description=(document or "").split("\n")[0])
    parser.add_argument("--source", type=Path, metavar="PATH", help=source)
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", default=Path("data/companions"),
        help="where JSON and picture go; default: %(default)s",
    )
    return parser


def deliver(name: str, given: argparse.Namespace, rows: Sequence[Sequence[str]], figures: dict[str, Any]) -> None:
    """Print `rows`, the first of which are headings, and write them with `figures` as NAME.json."""
    given.output.mkdir(parents=True, exist_ok=True)
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()}
    seconds = {"seconds": round(time.perf_counter() - _START, 1), "processor_seconds": round(time.process_time(), 1)}
    document = {"companion": name, "options": asked, **seconds}
    write_durably(
        given.output / f"{name}.json", json.dumps(document | figures | {"table": rows}, indent=1, ensure_ascii=False)
    )
    took = "{seconds:.0f} s, {processor_seconds:.0f} s of the processor".format(**seconds)
    print(*map(printable, aligned(rows)), f"{took}; picture and JSON in {given.output}", sep="\n")


@contextmanager
def reading(path: Path, wanted: str) -> Iterator[None]:
    """Turn what goes wrong while `path`, given with --source, is read into a sentence that says what is `wanted`."""
    mend = f"Give {wanted} with --source."
    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}.", mend) from error
    except (ValueError, LookupError) as error:
        raise DataError(f"{path} does not hold what is needed: {error}.", mend) from error


@contextmanager
def quiet(learn: Any) -> Iterator[None]:
    """Keep a fastai learner's bars and lines away from the table."""
    from fastai.callback import progress  # it gives learners `no_bar`

    with progress.Learner.no_bar(learn), learn.no_logging():
        yield


def run(main: Callable[[], None]) -> NoReturn:
    """End as the commands of the pipeline do: an expected error is a sentence and its exit code."""
    try:
        main()
    except PipelineError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(int(error.exit_code))
    sys.exit(0)
