"""A language model started from one with another vocabulary: which old rows each new token's row is made of.

Words take the row of the same word (fastai's `match_embeds`), pieces those of the words they are parts of; tokens the
old model does not know take the mean row.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.text.models.core import SequentialRNN
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError, InputError
from pipeline.model.architecture import Architecture
from pipeline.model.stored_tensors import read_tensors
from pipeline.model.unused_rows import silence
from pipeline.model.weights import copy_tensors, decoder_tensors, encoder_tensors, language_model_encoder
from pipeline.text.rules import SPACE, SPECIAL_TOKENS
from pipeline.text.vocabulary import read_vocabulary


@dataclass(frozen=True)
class Match:
    """The old rows each new token starts from. N new tokens, O old ones."""

    same: NDArray[np.int64]
    """[N] row of the token that stands for the new one, -1 for none."""
    n_old: int
    """O: rows of tokens; the mean row is theirs."""
    several: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    """New tokens that start from the mean of these rows."""

    @property
    def counts(self) -> dict[str, int]:
        """New tokens by where their row comes from."""
        return {name: int(chosen.sum()) for name, chosen in self._groups().items()}

    def shares(self, token_counts: NDArray[np.int64]) -> dict[str, float]:
        """Share of a text by where the rows of its tokens come from; `token_counts` [N] says how often each stands."""
        total = max(int(token_counts.sum()), 1)
        return {name: int(token_counts[chosen].sum()) / total for name, chosen in self._groups().items()}

    def rows(self, old: Tensor, n_rows: int) -> Tensor:
        """Old rows [>= O, ...] -> new rows [n_rows, ...]; those beyond N are 0."""
        old = old[: self.n_old]
        new = torch.zeros(n_rows, *old.shape[1:])
        new[: len(self.same)] = old.mean(0)
        known = np.flatnonzero(self.same >= 0)
        new[torch.from_numpy(known)] = old[torch.from_numpy(self.same[known])]
        for number, rows in self.several.items():
            new[number] = old[torch.from_numpy(rows)].mean(0)
        return new

    def _groups(self) -> dict[str, NDArray[np.bool_]]:
        same, several = self.same >= 0, np.zeros(len(self.same), dtype=np.bool_)
        several[list(self.several)] = True
        return {"same": same, "several": several, "mean": ~(same | several)}


def match_tokens(old: Sequence[str], new: Sequence[str]) -> Match:
    """Each token of `new` takes the row of the same token of `old`."""
    row_of = {token: row for row, token in enumerate(old)}
    return Match(np.array([row_of.get(token, -1) for token in new], dtype=np.int64), len(old))


def match_pieces(old: Sequence[str], new: Sequence[str]) -> Match:
    """SentencePiece's pieces `new` from the words `old`, cut by the same rules.

    A piece that begins a word (`▁film`) or a mark (`.`, `'s`) takes the row of the word it spells, else the mean of the
    rows of all words that begin with it, each counted once. A piece inside a word (`ing`) is no word, even where it
    spells one: it takes the mean of the words that end with it. Any other piece takes the mean row.
    """
    row_of = {token: row for row, token in enumerate(old)}
    words = {token: row for token, row in row_of.items() if token not in SPECIAL_TOKENS}
    beginning, ending = _Prefixes(words), _Prefixes({word[::-1]: row for word, row in words.items()})
    same = np.full(len(new), -1, dtype=np.int64)
    several = {}
    for number, piece in enumerate(new):
        stem = piece.removeprefix(SPACE)
        if stem == piece and piece[0].isalnum() and piece not in SPECIAL_TOKENS:
            several[number] = ending.rows(piece[::-1])
        elif stem in row_of:
            same[number] = row_of[stem]
        elif stem:
            several[number] = beginning.rows(stem)
    return Match(same, len(old), {number: rows for number, rows in several.items() if len(rows)})


class _Prefixes:
    """Strings by how they begin."""

    def __init__(self, row_of: Mapping[str, int]) -> None:
        self._strings = sorted(row_of)
        self._rows = np.array([row_of[string] for string in self._strings], dtype=np.int64)

    def rows(self, prefix: str) -> NDArray[np.int64]:
        """Rows of the strings that begin with `prefix`."""

        def beginning(string: str) -> str:
            return string[: len(prefix)]

        start = bisect_left(self._strings, prefix, key=beginning)
        return self._rows[start : bisect_right(self._strings, prefix, start, key=beginning)]


def match_vocabulary(folder: Path, vocabulary: Sequence[str], *, pieces: bool) -> Match:
    """The match of `vocabulary` with that of the language model in `folder`; `pieces`: it has words, we have pieces.

    Raises DataError if the two share nothing but special tokens.
    """
    match = (match_pieces if pieces else match_tokens)(read_vocabulary(folder), vocabulary)
    known = {vocabulary[number] for number in (*np.flatnonzero(match.same >= 0), *match.several)}
    if known <= set(SPECIAL_TOKENS):
        raise DataError(
            f"{folder} knows no token of this text but special ones, so there is nothing to start from.",
            "Take a language model of the same language, or train from scratch: --set inputs.start_lm=none.",
        )
    return match


def load_matched(folder: Path, model: SequentialRNN, architecture: Architecture, match: Match) -> None:
    """Fill `model`, built as `architecture`, from the language model in `folder`, its rows as `match` says.

    Raises InputError if the files in `folder` do not fit together or the model is not of their architecture.
    """
    if Architecture.load(folder / "architecture.json").vocabulary_size != match.n_old:
        raise InputError(f"{folder}: architecture.json and vocabulary.json do not fit together.", _MEND)
    path = folder / "encoder.safetensors"
    encoder, decoder = read_tensors(path), read_tensors(folder / "decoder.safetensors")
    for tensors, name in ((encoder, "embedding.weight"), (decoder, "weight"), (decoder, "bias")):
        if name in tensors:
            if len(tensors[name]) < match.n_old:
                raise InputError(f"{folder} has {len(tensors[name])} rows for {match.n_old} tokens.", _MEND)
            tensors[name] = match.rows(tensors[name], architecture.rows)
    copy_tensors(encoder_tensors(language_model_encoder(model)), encoder, path)
    copy_tensors(decoder_tensors(model), decoder, folder / "decoder.safetensors")
    with torch.no_grad():
        silence(model[1].decoder.weight, model[1].decoder.bias, len(match.same))


def record(match: Match, token_counts: NDArray[np.int64]) -> dict[str, Any]:
    """For the manifest: the share of types and of training tokens that do not start from the mean row, and details.

    `token_counts` [N]: how often each token stands in the training text.
    """
    types, shares = match.counts, match.shares(token_counts)
    return {
        "types": round(1 - types["mean"] / len(match.same), 6),
        "tokens": round(1 - shares["mean"], 6),
        "rows": {name: {"types": types[name], "tokens": round(shares[name], 6)} for name in types},
    }


_MEND = "Restore the language model from a copy, or make it anew with --force."
