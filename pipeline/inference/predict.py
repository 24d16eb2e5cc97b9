"""The `predict` command: texts from arguments, a pipe or a file; classes and probabilities out, in the same order.

An empty or blank text is predicted from xxbos alone: the classifier's prior. All other texts are cleaned as those of a
corpus are (`pipeline.corpus.cleaning`), which drops nothing else and refuses only documents of over 64 MB.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline import machine, stopping
from pipeline.errors import LockedError, PipelineError, Stopped, UsageError
from pipeline.inference.bundle import BS, ClassifierBundle, load_classifier_bundle
from pipeline.inference.choice import asked_settings, find_classifier
from pipeline.inference.inputs import InputText, blocks, digest, from_arguments, from_file, from_lines
from pipeline.inference.outputs import Format, JsonLines, Predictions, format_of
from pipeline.inference.parts import Parts, parts_folder
from pipeline.lock import locked
from pipeline.progress import Reporter, Task, format_duration
from pipeline.storage import move_into_place, sync
from pipeline.training.device import keep_freed_memory

FORMAT_VERSION = 1
"""Of unfinished outputs; goes up when the same input and settings would give another block."""


@dataclass(frozen=True)
class PredictRequest:
    """What was asked for on the command line."""

    model: str
    """Folder of a sealed classifier, or the name of a run."""
    texts: tuple[str, ...] = ()
    input: Path | None = None
    """None, and no texts: standard input."""
    output: Path | None = None
    """None: JSON lines to standard output."""
    id_column: str | None = None
    text_column: str = "text"
    bs: int = BS
    precision: str = "auto"
    device: str = "auto"
    force: bool = False
    home: Path = Path()


def predict(request: PredictRequest, reporter: Reporter, stdin: BinaryIO, stdout: BinaryIO) -> int:
    """Predict all texts; returns how many there were.

    Raises UsageError, InputError and DataError for what cannot be read or written, DivergedError for probabilities
    that are no numbers, LockedError if another process writes the same output, Stopped if a stop was asked for.
    """
    try:
        return _predict(request, reporter, stdin, stdout)
    except LockedError as error:
        raise LockedError(error.what, "Wait for it, or choose another --output.") from error
    except PipelineError:
        raise
    except Exception as error:
        expected = machine.limit_behind(error, "predict")
        if expected is None:
            raise
        raise expected from error


def _predict(request: PredictRequest, reporter: Reporter, stdin: BinaryIO, stdout: BinaryIO) -> int:
    _check(request, stdin)
    settings = asked_settings(request.precision, request.device)
    keep_freed_memory()
    bundle = load_classifier_bundle(find_classifier(request.model, request.home), settings)
    reporter.line(f"predict: {bundle.path}, {bundle.classifier.device.describe()}")
    started = time.monotonic()
    predictor = _Predictor(request, bundle, reporter)
    texts, output = blocks(_texts(request, stdin)), request.output
    n_texts = predictor.to_stdout(texts, stdout) if output is None else predictor.to_file(texts, output)
    elapsed = time.monotonic() - started
    reporter.line(f"predict: {n_texts:,} texts in {format_duration(elapsed)}")
    cleaned = ", ".join(f"{name} {count:,}" for name, count in sorted(predictor.cleaned.items()))
    if cleaned:
        reporter.line(f"predict: cleaned: {cleaned} (empty and blank texts get the prior of an empty document)")
    return n_texts


def _check(request: PredictRequest, stdin: BinaryIO) -> None:
    if request.texts and request.input is not None:
        raise UsageError("There are texts and an --input.", "Give one of the two.")
    if not request.texts and request.input is None and stdin.isatty():
        raise UsageError("There is nothing to predict.", "Give texts, --input FILE, or pipe one text a line in.")
    output = request.output
    if output is None:
        return
    format_of(output, ())
    if request.input is not None and output.resolve() == request.input.resolve():
        raise UsageError(f"--output {output} is the input.", "Choose another name.")
    if not output.parent.is_dir():
        raise UsageError(f"--output {output} is in a folder that is not there.", f"Make it: mkdir -p {output.parent}")
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder.", "Choose another name.")
    if output.exists() and not request.force:
        raise UsageError(f"{output} is there already.", "Replace it with --force, or choose another --output.")


def _texts(request: PredictRequest, stdin: BinaryIO) -> Iterator[InputText]:
    if request.texts:
        return from_arguments(request.texts)
    if request.input is not None:
        return from_file(request.input, request.id_column, request.text_column)
    return from_lines(stdin, "standard input")


class _Predictor:
    """Predicts and writes blocks of texts."""

    def __init__(self, request: PredictRequest, bundle: ClassifierBundle, reporter: Reporter) -> None:
        self._request, self._bundle, self._reporter = request, bundle, reporter
        self.cleaned = Counter[str]()
        """What cleaning did to the texts that were predicted."""

    def to_stdout(self, texts: Iterator[list[InputText]], stdout: BinaryIO) -> int:
        """Write each block as soon as it is done; returns the number of texts."""
        written, n_texts = JsonLines(self._bundle.labels), 0
        try:
            with self._reporter.task("predicting", None, "texts") as task:
                for block in texts:
                    stdout.write(self._predicted(block, written, task))
                    stdout.flush()
                    n_texts += len(block)
        except Stopped as error:
            mend = f"{n_texts:,} predictions were written. With --output FILE, the same command goes on."
            raise Stopped(error.what, mend) from error
        return n_texts

    def to_file(self, texts: Iterator[list[InputText]], output: Path) -> int:
        """Keep each block until all are done, then join them: the file is complete or absent."""
        request, device = self._request, self._bundle.classifier.device
        asked = {
            "format_version": FORMAT_VERSION, "classifier": self._bundle.fingerprint, "device": str(device.device),
            "precision": device.precision, "bs": request.bs, "id_column": request.id_column,
            "text_column": request.text_column,
        }
        # The lock lies in the folder of the blocks, and goes with it.
        with locked(parts_folder(output) / output.name):
            parts = Parts(output, asked, self._reporter, request.force)
            written = format_of(output, self._bundle.labels)
            digests: list[bytes] = []
            n_texts, before = 0, b""
            with self._reporter.task("predicting", None, "texts") as task:
                for number, block in enumerate(texts):
                    before = digest(before, block)
                    if parts.get(number, before) is None:
                        parts.put(number, before, self._predicted(block, written, task))
                    else:
                        task.advance(len(block), "finished before")
                    digests.append(before)
                    n_texts += len(block)
            temporary = parts.folder / output.name
            with temporary.open("wb") as stream:
                written.join(parts.read_all(digests), stream)
            sync(temporary)
            move_into_place(temporary, output)
            parts.remove()
        return n_texts

    def _predicted(self, block: list[InputText], written: Format, task: Task) -> bytes:
        def check() -> None:
            stopping.check("predict")

        check()
        documents = self._bundle.text.encode([text.text for text in block], self.cleaned)
        probabilities = self._bundle.probabilities(
            documents, bs=self._request.bs, between_steps=check, done=task.advance
        )
        return written.block(Predictions([text.id for text in block], self._bundle.labels, probabilities))
