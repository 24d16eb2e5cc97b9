"""The one tokenizer that training, prediction and serving share: make, save and load it."""

import json
import re
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import InputError, UsageError
from pipeline.text.encoding import EncodedBatch
from pipeline.text.rules import SPECIAL_TOKENS

if TYPE_CHECKING:
    from pipeline.text.pieces import PieceSplitter

TOKENIZER_FILE = "tokenizer.json"
_NEEDS = {"word": ("language",), "subword": ("sha256",)}
"""What tokenizer.json must say of a kind, beside kind, rules and special tokens."""
_LANGUAGE = re.compile("[a-z]{2,3}")
_MEND = "Restore it from a copy, or run tokenize_corpus again with --force."


class Tokenizer(Protocol):
    """Text to tokens and back."""

    kind: str
    rules: str
    normalize: str

    @property
    def splitter(self) -> "PieceSplitter | None":
        """Does the part of `encode` that needs no memory of words, for worker processes; None if there is no such."""
        ...

    def join(self, pieces: EncodedBatch) -> EncodedBatch:
        """Does the rest: types and ids of the texts that `splitter` cut into `pieces`."""
        ...

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one text, xxbos first."""
        ...

    def encode(self, texts: Sequence[str]) -> EncodedBatch:
        """Types and ids of many texts; the same tokens as `tokenize` gives."""
        ...

    def detokenize(self, tokens: Sequence[str]) -> str:
        """Readable text; special tokens carried out."""
        ...

    def describe(self) -> dict[str, Any]:
        """What tokenizer.json says beside kind, rules and special tokens."""
        ...

    def save_model(self, folder: Path) -> None:
        """Write whatever the tokenizer needs beside tokenizer.json."""
        ...


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and the model file, if there is one, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "kind": tokenizer.kind, "rules": tokenizer.rules, "special_tokens": list(SPECIAL_TOKENS),
        **({} if tokenizer.normalize == "none" else {"normalize": tokenizer.normalize}), **tokenizer.describe(),
    }
    tokenizer.save_model(folder)
    text = json.dumps(description, ensure_ascii=False, indent=2) + "\n"
    (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8", newline="\n")


def tokenizer_kind(folder: Path) -> str:
    """word, subword or char: what the tokenizer saved in `folder` says of itself; InputError if it is damaged."""
    path = folder / TOKENIZER_FILE
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is missing or damaged: {type(error).__name__} {error}.", _MEND) from error


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer saved in `folder`. Raises InputError if it is missing, damaged or of an unknown kind."""
    path = folder / TOKENIZER_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        kind, rules, normalize = description["kind"], description["rules"], description.get("normalize", "none")
        asked = {name: str(description[name]) for name in _NEEDS.get(kind, ())}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is missing or damaged: {type(error).__name__} {error}.", _MEND) from error
    known = rules in ("fastai", "none") and normalize in ("none", "NFC", "NFKC")
    if not known or description.get("special_tokens") != list(SPECIAL_TOKENS):
        raise InputError(f"{path} names rules, a normal form or special tokens this version does not have.", _MEND)
    if kind == "word":
        from pipeline.text.word import WordTokenizer

        if not _LANGUAGE.fullmatch(asked["language"]):
            raise InputError(f"{path} names {asked['language'][:80]!r}, which is no language code.", _MEND)
        made_with, here = description.get("spacy", "?"), version("spacy")
        if made_with != here:
            warnings.warn(f"{path} was made with spaCy {made_with}; {here} may split words otherwise", stacklevel=2)
        try:
            return WordTokenizer(asked["language"], rules, normalize).load()
        except UsageError as error:
            raise InputError(f"{path} cannot be used: {error.what}", _MEND) from error
    if kind == "subword":
        from pipeline.text.subword import load_subword

        return load_subword(folder, rules, asked["sha256"], normalize)
    if kind == "char":
        from pipeline.text.char import CharTokenizer

        return CharTokenizer(rules, normalize)
    shown = str(kind)[:80]
    raise InputError(f"{path} describes a tokenizer of kind {shown!r}, which this version does not have.", _MEND)
