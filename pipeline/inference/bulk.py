"""Texts in, a row for each out: in the same order, block by block, a file complete or absent.

What is made of the texts is a `Work`. A file that was stopped or killed goes on after its last finished block, to the
same bytes. Texts are cleaned as those of a corpus are (`pipeline.corpus.cleaning`), but none is dropped: an empty or
blank one is read as xxbos alone. Documents of over 64 MB are refused.
"""

import io
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pipeline import machine, stopping
from pipeline.errors import LockedError, PipelineError, Stopped, UsageError
from pipeline.inference.bundle import BS
from pipeline.inference.inputs import (
    TEXT_COLUMN,
    InputText,
    blocks,
    digest,
    from_arguments,
    from_file,
    from_lines,
    from_pipe,
)
from pipeline.inference.outputs import Format
from pipeline.inference.parts import Parts, parts_folder
from pipeline.inference.pooling import Rows
from pipeline.lock import locked
from pipeline.progress import Reporter, Task, format_duration
from pipeline.storage import check_place_of_file, move_into_place, sync
from pipeline.text.text_encoder import TextEncoder
from pipeline.training.device import Device, keep_freed_memory

FORMAT_VERSION = 1
"""Of unfinished outputs; goes up when the same input and settings would give another block."""
TO_STDOUT = ".jsonl"


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    model: str
    """Folder of a sealed model, or the name of a run."""
    texts: tuple[str, ...] = ()
    input: Path | None = None
    """None, and no texts: standard input."""
    output: Path | None = None
    """None: JSON lines to standard output."""
    id_column: str | None = None
    text_column: str = TEXT_COLUMN
    bs: int = BS
    precision: str = "auto"
    device: str = "auto"
    force: bool = False
    home: Path = Path()


@dataclass(frozen=True)
class Wording:
    """How messages call what is done."""

    command: str
    doing: str
    done: str
    rows: str
    empty: str
    """What empty texts get."""


class Work(Protocol):
    """What is made of texts, by a model that is loaded."""

    @property
    def path(self) -> Path:
        """Folder of the model."""
        ...

    @property
    def text(self) -> TextEncoder:
        """Reads texts as the model does."""
        ...

    @property
    def device(self) -> Device:
        """Where the model is."""
        ...

    @property
    def asked(self) -> dict[str, str]:
        """The model and the settings that shape the rows, beside those of the request."""
        ...

    def written_as(self, suffix: str) -> Format:
        """How rows are written into a file of this suffix."""
        ...

    def rows(
        self, ids: Sequence[str], documents: Rows, check: Callable[[], None], done: Callable[[int], Any]
    ) -> Any:
        """What a Format writes of documents, given as token ids.

        `check` is called between steps and may end the work; `done` is told how many documents each batch had.
        """
        ...


def carry_out(
    request: Request, wording: Wording, suffixes: Collection[str], load: Callable[[], Work], *, reporter: Reporter,
    stdin: BinaryIO, stdout: BinaryIO,
) -> int:
    """Make the rows of all texts, with the work that `load` gives; returns how many there were.

    `suffixes` are those an output can have. Raises UsageError, InputError and DataError for what cannot be read or
    written, LockedError if another process writes the same output, Stopped if a stop was asked for.
    """
    try:
        with machine.limits_told(wording.command):
            _check(request, wording, suffixes, stdin)
            keep_freed_memory()
            work = load()
            reporter.line(f"{wording.command}: {work.path}, {work.device.describe()}")
            texts = _texts(request, stdin, lambda: stopping.check(wording.command))
            return _Run(request, wording, work, reporter).all_of(texts, stdout)
    except LockedError as error:
        raise LockedError(error.what, "Wait for it, or choose another --output.") from error


def _check(request: Request, wording: Wording, suffixes: Collection[str], stdin: BinaryIO) -> None:
    if request.texts and request.input is not None:
        raise UsageError("There are texts and an --input.", "Give one of the two.")
    no_table = request.input is None or request.input.suffix.lower() == ".txt"
    if no_table and (request.id_column is not None or request.text_column != TEXT_COLUMN):
        option = "--text-column" if request.id_column is None else "--id-column"
        raise UsageError(f"{option} names a column, and there is no table.", "Give one with --input.")
    if not request.texts and request.input is None and stdin.isatty():
        raise UsageError(
            f"There is nothing to {wording.command}.", "Give texts, --input FILE, or pipe one text a line in."
        )
    output = request.output
    if output is None:
        return
    if output.suffix.lower() not in suffixes:
        raise UsageError(
            f"--output {output} has no known suffix.", f"{wording.rows.capitalize()} end in {', '.join(suffixes)}."
        )
    if request.input is not None and output.resolve() == request.input.resolve():
        raise UsageError(f"--output {output} is the input.", "Choose another name.")
    check_place_of_file(output, "--output")
    _check_absent(output, request.force)


def _check_absent(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise UsageError(f"{output} is there already.", "Replace it with --force, or choose another --output.")


def _texts(request: Request, stdin: BinaryIO, check: Callable[[], None]) -> Iterator[InputText | None]:
    """The texts; None where more may come later, after `check`, which may end the waiting."""
    if request.texts:
        return from_arguments(request.texts)
    if request.input is not None:
        return from_file(request.input, request.id_column, request.text_column)
    try:
        return from_pipe(stdin.fileno(), "standard input", check)
    except io.UnsupportedOperation:  # no file of the system
        return from_lines(stdin, "standard input")


class _Run:
    """Makes and writes the rows of blocks of texts."""

    def __init__(self, request: Request, wording: Wording, work: Work, reporter: Reporter) -> None:
        self._request, self._wording, self._work, self._reporter = request, wording, work, reporter
        self._cleaned = Counter[str]()
        """What cleaning did to the texts that were read."""

    def all_of(self, texts: Iterator[InputText | None], stdout: BinaryIO) -> int:
        """Write the rows where the request says, and tell what was done; returns the number of texts."""
        started, output = time.monotonic(), self._request.output
        n_texts = self._to_stdout(texts, stdout) if output is None else self._to_file(texts, output)
        command = self._wording.command
        self._reporter.line(f"{command}: {n_texts:,} texts in {format_duration(time.monotonic() - started)}")
        cleaned = ", ".join(f"{name} {count:,}" for name, count in sorted(self._cleaned.items()))
        if cleaned:
            self._reporter.line(f"{command}: cleaned: {cleaned} (empty and blank texts get {self._wording.empty})")
        return n_texts

    def _to_stdout(self, texts: Iterator[InputText | None], stdout: BinaryIO) -> int:
        """Write each block as soon as it is done, and what has come when a pipe pauses."""
        written, n_texts = self._work.written_as(TO_STDOUT), 0
        try:
            with self._reporter.task(self._wording.doing, None, "texts") as task:
                for block in blocks(texts):
                    stdout.write(self._block(block, written, task))
                    stdout.flush()
                    n_texts += len(block)
        except Stopped as error:
            mend = f"{n_texts:,} {self._wording.rows} were written. With --output FILE, the same command goes on."
            raise Stopped(error.what, mend) from error
        return n_texts

    def _to_file(self, texts: Iterator[InputText | None], output: Path) -> int:
        """Keep each block until all are done, then join them."""
        request, work = self._request, self._work
        asked = {
            "format_version": FORMAT_VERSION, **work.asked, "device": str(work.device.device),
            "precision": work.device.precision, "bs": request.bs, "id_column": request.id_column,
            "text_column": request.text_column,
        }
        # The lock lies in the folder of the blocks, and goes with it.
        with locked(parts_folder(output) / output.name):
            _check_absent(output, request.force)  # another command may have finished it since
            parts = Parts(output, asked, self._wording.done, self._reporter, request.force)
            written = work.written_as(output.suffix.lower())
            digests: list[bytes] = []
            n_texts, before = 0, b""
            try:
                with self._reporter.task(self._wording.doing, None, "texts") as task:
                    # Pauses end no block here: the same input has to have the same blocks when it is read again.
                    for number, block in enumerate(blocks(text for text in texts if text is not None)):
                        before = digest(before, block)
                        if parts.get(number, before) is None:
                            parts.put(number, before, self._block(block, written, task))
                        else:
                            task.advance(len(block), "finished before")
                        digests.append(before)
                        n_texts += len(block)
            except PipelineError:
                parts.remove_if_empty()
                raise
            temporary = parts.folder / output.name
            with temporary.open("wb") as stream:
                written.join(parts.read_all(digests), stream)
            sync(temporary)
            move_into_place(temporary, output)
            parts.remove()
        return n_texts

    def _block(self, block: list[InputText], written: Format, task: Task) -> bytes:
        def check() -> None:
            stopping.check(self._wording.command)

        check()
        documents = self._work.text.encode([text.text for text in block], self._cleaned)
        return written.block(self._work.rows([text.id for text in block], documents, check, task.advance))
