"""A pickled list of strings, read and written without pickle.

fastai saves its vocabulary (`itos`) with pickle, which runs whatever a file tells it to. Here the file's instructions
are only listed, by `pickletools.genops`, and the few that build a list of strings are carried out by hand. There is no
instruction that imports or calls anything: a file that asks for one is refused. fastai reads no other form, so what is
exported to it is written with the same few instructions.
"""

import pickletools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

MAX_BYTES = 64 * 2**20
MAX_STRINGS = 1_000_000
"""fastai's largest vocabularies have 60,000 entries."""

_STRINGS = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_STORES = {"PUT", "BINPUT", "LONG_BINPUT"}
_FETCHES = {"GET", "BINGET", "LONG_BINGET"}
_IDLE = {"PROTO", "FRAME"}
_MEND = (
    "Only where you trust the file, make a plain list of it with Python: "
    "pickle.dump([str(token) for token in vocabulary], open('itos.pkl', 'wb'))."
)


def read_string_list(path: Path) -> list[str]:
    """The list of strings pickled in `path`, in any of pickle's protocols 0 to 5.

    Raises InputError if the file is damaged, larger than 64 MiB, or holds anything but one list of at most a million
    strings; nothing in it is run.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size:,} bytes; no vocabulary has more than {MAX_BYTES:,}.", _MEND)
    machine = _ListMachine(path)
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            machine.step(opcode.name, argument)
    except (ValueError, KeyError, IndexError) as error:
        raise InputError(f"{path} is damaged or no pickle: {str(error).strip()}.", "Fetch or save it again.") from error
    return machine.result()


def write_string_list(path: Path, strings: Sequence[str]) -> None:
    """Write `strings` as `pickle.load` reads a list of them: protocol 2, strings and nothing else."""
    encoded = [string.encode() for string in strings]
    items = b"".join(b"X" + struct.pack("<I", len(text)) + text for text in encoded)  # BINUNICODE
    path.write_bytes(b"\x80\x02](" + items + b"e.")  # PROTO 2, EMPTY_LIST, MARK, the strings, APPENDS, STOP


class _ListMachine:
    """Pickle's stack and memo, for lists of strings alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction; InputError for one that a list of strings does not need."""
        stack = self._stack
        if name in _STRINGS:
            stack.append(argument)
        elif name in _STORES:
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _FETCHES:
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "LIST":
            items = self._pop_marked()
            stack.append([])
            self._extend(items)
        elif name == "APPEND":
            self._extend([stack.pop()])
        elif name == "APPENDS":
            self._extend(self._pop_marked())
        elif name not in _IDLE and name != "STOP":
            raise self._refusal(self._named(name, argument))
        if len(stack) > MAX_STRINGS:
            raise self._refusal(f"more than {MAX_STRINGS:,} entries")

    def result(self) -> list[str]:
        """What is left at the end, if it is one list."""
        if len(self._stack) != 1 or self._marks or not isinstance(self._stack[0], list):
            raise self._refusal("something else")
        found: list[str] = self._stack[0]
        try:
            for string in set(found):  # which may be a few large ones, listed a million times
                string.encode()
        except UnicodeEncodeError as error:
            raise self._refusal(f"text that is no Unicode ({error.reason})") from error
        return found

    def _pop_marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list) or not all(isinstance(item, str) for item in items):
            raise self._refusal("lists inside a list")
        if len(target) + len(items) > MAX_STRINGS:
            raise self._refusal(f"more than {MAX_STRINGS:,} entries")
        target.extend(items)

    def _named(self, name: str, argument: Any) -> str:
        """What an instruction that is refused stands for."""
        if name in ("GLOBAL", "INST"):
            return f"an object of {argument.replace(' ', '.')!r}"
        if name == "STACK_GLOBAL":
            return f"an object of {'.'.join(map(str, self._stack[-2:]))!r}"
        return f"more than strings (pickle's {name})"

    def _refusal(self, what: str) -> InputError:
        return InputError(f"{self._path} holds {what}, not a plain list of strings.", _MEND)
