"""Which letters a set of regular expressions does not tell apart.

Patterns are read with Python's own parser of them. It is not public: where this Python has none, or its answer holds
anything not known here, the answer is Unknown.
"""

import importlib
import re
import string
from collections.abc import Sequence
from typing import Any

_PLAIN_FLAGS = re.UNICODE


class Unknown(Exception):
    """A pattern, or this Python's parser, holds something that this module has no rule for."""


try:
    _parser: Any = importlib.import_module("re._parser")
except ImportError:
    _parser = None


def interchangeable(patterns: Sequence[re.Pattern[str]], alphabet: str) -> dict[int, str]:
    """For str.translate: each lower-case letter to the first of those that no pattern tells from it.

    Two letters are told apart if a part of a pattern that can match in a text over `alphabet` takes one of them and
    not the other. Raises Unknown.
    """
    if _parser is None:
        raise Unknown
    codes = frozenset(map(ord, alphabet))
    taken: set[frozenset[int]] = set()
    for pattern in patterns:
        if pattern.flags != _PLAIN_FLAGS:
            raise Unknown
        taken |= _taken(_parser.parse(pattern.pattern, pattern.flags), codes) or set()
    first: dict[tuple[bool, ...], str] = {}
    letters = {}
    for letter in string.ascii_lowercase:
        signature = tuple(ord(letter) in characters for characters in taken)
        letters[ord(letter)] = first.setdefault(signature, letter)
    return letters


def _taken(items: Any, codes: frozenset[int]) -> set[frozenset[int]] | None:
    """The sets of characters out of `codes` that the parts of a sequence take; None if it cannot match at all."""
    taken: set[frozenset[int]] = set()
    for op, argument in items:
        found = _taken_by(op, argument, codes)
        if found is None:
            return None
        taken |= found
    return taken


def _taken_by(op: Any, argument: Any, codes: frozenset[int]) -> set[frozenset[int]] | None:  # noqa: PLR0911
    if op.name == "AT":
        return set()  # ends and word boundaries: all letters are parts of words
    if op.name == "LITERAL":
        return _some(codes & {argument})
    if op.name == "NOT_LITERAL":
        return _some(codes - {argument})
    if op.name == "IN":
        return _some(_members(argument, codes))
    if op.name == "BRANCH":
        branches = [found for branch in argument[1] if (found := _taken(branch, codes)) is not None]
        return set().union(*branches) if branches else None
    if op.name == "SUBPATTERN" and not argument[1] and not argument[2]:
        return _taken(argument[3], codes)
    if op.name in ("MAX_REPEAT", "MIN_REPEAT"):
        found = _taken(argument[2], codes)
        return set() if found is None and argument[0] == 0 else found
    if op.name == "ASSERT":
        return _taken(argument[1], codes)
    if op.name == "ASSERT_NOT":
        return _taken(argument[1], codes) or set()
    raise Unknown


def _some(characters: frozenset[int]) -> set[frozenset[int]] | None:
    return {characters} if characters else None


def _members(items: Any, codes: frozenset[int]) -> frozenset[int]:
    """Those of `codes` that a character class takes."""
    found: set[int] = set()
    negated = False
    for op, argument in items:
        if op.name == "NEGATE":
            negated = True
        elif op.name == "LITERAL":
            found.add(argument)
        elif op.name == "RANGE":
            low, high = argument
            found.update(code for code in codes if low <= code <= high)
        elif op.name == "CATEGORY" and argument.name in _CATEGORIES:
            found.update(code for code in codes if _CATEGORIES[argument.name](chr(code)))
        else:
            raise Unknown
    return codes - found if negated else codes & found


_CATEGORIES: dict[Any, Any] = {
    "CATEGORY_DIGIT": re.compile(r"\d").match, "CATEGORY_NOT_DIGIT": re.compile(r"\D").match,
    "CATEGORY_SPACE": re.compile(r"\s").match, "CATEGORY_NOT_SPACE": re.compile(r"\S").match,
    "CATEGORY_WORD": re.compile(r"\w").match, "CATEGORY_NOT_WORD": re.compile(r"\W").match,
}
