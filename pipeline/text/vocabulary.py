"""Which tokens get an id."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.text.rules import PAD, SPECIAL_TOKENS, UNK

VOCABULARY_FILE = "vocabulary.json"


def make_vocabulary(
    types: Sequence[str], counts: npt.NDArray[np.int64], min_freq: int, max_vocab: int
) -> list[str]:
    """The vocabulary fastai's `make_vocab` gives, without its `xxfake` padding.

    `types` in order of first appearance, `counts` of the same length. Most frequent first, ties in order of
    appearance, the nine special tokens in front, at most `max_vocab` entries in all.
    """
    order = np.argsort(-counts, kind="stable")[:max_vocab]
    special = set(SPECIAL_TOKENS)
    kept = [types[i] for i in order if counts[i] >= min_freq and types[i] not in special]
    return [*SPECIAL_TOKENS, *kept][:max_vocab]


def write_vocabulary(folder: Path, vocabulary: Sequence[str]) -> None:
    """Write vocabulary.json: a list of tokens, position = id."""
    text = json.dumps(list(vocabulary), ensure_ascii=False, indent=0) + "\n"
    (folder / VOCABULARY_FILE).write_text(text, encoding="utf-8", newline="\n")


def read_vocabulary(folder: Path) -> list[str]:
    """The vocabulary in `folder`. Raises InputError if it is no list of distinct tokens with xxunk in it."""
    path = folder / VOCABULARY_FILE
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged: {error}.") from error
    if not isinstance(vocabulary, list) or not all(isinstance(token, str) for token in vocabulary):
        raise InputError(f"{path} is not a list of tokens.")
    if UNK not in vocabulary or len(set(vocabulary)) != len(vocabulary):
        raise InputError(f"{path} lacks {UNK} or holds a token twice.")
    return vocabulary


def ids_of_types(types: Sequence[str], numbers: Mapping[str, int]) -> npt.NDArray[np.uint32]:
    """The id of each type in a vocabulary of these `numbers`; tokens outside it get that of xxunk.

    So does a word that is written like the token of padding, which no model would read.
    """
    unknown = numbers[UNK]
    return np.array([unknown if token == PAD else numbers.get(token, unknown) for token in types], dtype=np.uint32)
