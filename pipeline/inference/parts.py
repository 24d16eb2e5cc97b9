"""Finished blocks of an output file, kept beside it until the file is complete.

`.NAME.partial/` holds `attempt.json`, what was asked for, and a file for each finished block. A block knows the digest
of all input up to its end, so one of another input is seen when the input is read again, be it a file or a pipe.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.progress import Reporter
from pipeline.storage import write_durably

ATTEMPT = "attempt.json"
_DIGEST_BYTES = hashlib.sha256().digest_size


class Parts:
    """The finished blocks of `output`."""

    def __init__(self, output: Path, asked: dict[str, Any], done: str, reporter: Reporter, force: bool) -> None:
        """Go on with what is there, or begin. `done` is what was done to its texts, for messages: predicted.

        Raises InputError if it was begun with another model or other settings than `asked` says; with `force` that is
        discarded, here and in all other methods.
        """
        self.folder = parts_folder(output)
        self._output, self._done, self._reporter, self._force = output, done, reporter, force
        attempt = self.folder / ATTEMPT
        if attempt.exists():
            self._check_same(attempt, asked)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_durably(attempt, json.dumps(asked, ensure_ascii=False, indent=2) + "\n")

    def _check_same(self, attempt: Path, asked: dict[str, Any]) -> None:
        try:
            begun = json.loads(attempt.read_text(encoding="utf-8"))
            changed = [f"{key} was {begun.get(key)}, now {asked[key]}" for key in asked if begun.get(key) != asked[key]]
        except (OSError, ValueError, AttributeError):
            changed = [f"{attempt.name} cannot be read"]
        if changed and not self._force and self._blocks():
            raise InputError(
                f"{self._output} is unfinished and was begun otherwise: {'; '.join(changed)}.",
                "Give the first command again, or begin anew with --force.",
            )
        if changed:
            for block in self._blocks():
                block.unlink()

    def path(self, number: int) -> Path:
        """Where block `number` lies or will lie."""
        return self.folder / f"{number:08d}.block"

    def get(self, number: int, input_digest: bytes) -> bytes | None:
        """Block `number`; None if it is not finished or damaged. InputError if it was made from another input."""
        try:
            data = self.path(number).read_bytes()
        except FileNotFoundError:
            return None
        made_from, checksum = data[:_DIGEST_BYTES], data[_DIGEST_BYTES : 2 * _DIGEST_BYTES]
        content = data[2 * _DIGEST_BYTES :]
        if hashlib.sha256(made_from + content).digest() != checksum:
            self._reporter.line(f"{self.path(number)} is damaged; its texts are {self._done} again")
            return None
        if made_from != input_digest:
            if not self._force:
                raise self._other_input()
            return None
        return content

    def put(self, number: int, input_digest: bytes, content: bytes) -> None:
        """Keep a finished block: complete or not at all, also after a power cut."""
        checksum = hashlib.sha256(input_digest + content).digest()
        write_durably(self.path(number), input_digest + checksum + content)

    def read_all(self, digests: list[bytes]) -> Iterator[bytes]:
        """All blocks in order. Raises InputError if there are more than the input has."""
        if self.path(len(digests)).exists() and not self._force:
            raise self._other_input()
        for number, input_digest in enumerate(digests):
            block = self.get(number, input_digest)
            if block is None:
                raise InputError(f"{self.path(number)} was lost while the output was put together.", "Try again.")
            yield block

    def _blocks(self) -> list[Path]:
        return list(self.folder.glob("*.block"))

    def remove(self) -> None:
        """The output is complete."""
        shutil.rmtree(self.folder)

    def remove_if_empty(self) -> None:
        """Nothing came of it: the first command may have been wrong."""
        if not self._blocks():
            self.remove()

    def _other_input(self) -> InputError:
        return InputError(
            f"{self._output} is unfinished and was begun with another input.",
            "Give the same input again, or begin anew with --force.",
        )


def parts_folder(output: Path) -> Path:
    """Where the unfinished `output` is kept."""
    return output.with_name(f".{output.name}.partial")
