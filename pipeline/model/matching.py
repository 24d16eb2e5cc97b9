"""A language model started from one with another vocabulary: which old rows each new token's row is made of.

Words take the row of the same word (fastai's `match_embeds`); tokens the old model does not know take the mean row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.text.models.core import SequentialRNN
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError, InputError
from pipeline.model.architecture import Architecture
from pipeline.model.unused_rows import silence
from pipeline.model.weights import copy_tensors, decoder_tensors, encoder_tensors, language_model_encoder, read_tensors
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.vocabulary import read_vocabulary


@dataclass(frozen=True)
class Match:
    """The old rows each new token starts from. N new tokens, O old ones."""

    same: NDArray[np.int64]
    """[N] row of the token that stands for the new one, -1 for none."""
    n_old: int
    """O: rows of tokens; the mean row is theirs."""

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
        return new

    def _groups(self) -> dict[str, NDArray[np.bool_]]:
        return {"same": self.same >= 0, "mean": self.same < 0}


def match_tokens(old: Sequence[str], new: Sequence[str]) -> Match:
    """Each token of `new` takes the row of the same token of `old`."""
    row_of = {token: row for row, token in enumerate(old)}
    return Match(np.array([row_of.get(token, -1) for token in new], dtype=np.int64), len(old))


def start_from(folder: Path, model: SequentialRNN, architecture: Architecture, vocabulary: Sequence[str]) -> Match:
    """Fill `model`, built as `architecture` for `vocabulary`, from the language model in `folder`.

    Everything but embedding and decoder is copied. Raises InputError if the files in `folder` do not fit together or
    the model is not of their architecture, DataError if the two vocabularies share nothing but special tokens.
    """
    old = read_vocabulary(folder)
    if Architecture.load(folder / "architecture.json").vocabulary_size != len(old):
        raise InputError(f"{folder}: architecture.json and vocabulary.json do not fit together.", _MEND)
    match = match_tokens(old, vocabulary)
    known = {token for token, row in zip(vocabulary, match.same, strict=True) if row >= 0}
    if known <= set(SPECIAL_TOKENS):
        raise DataError(
            f"{folder} knows no token of this text but special ones, so there is nothing to start from.",
            "Take a language model of the same language, or train from scratch: --set inputs.start_lm=none.",
        )
    path = folder / "encoder.safetensors"
    encoder, decoder = read_tensors(path), read_tensors(folder / "decoder.safetensors")
    for tensors, name in ((encoder, "embedding.weight"), (decoder, "weight"), (decoder, "bias")):
        if name in tensors:
            if len(tensors[name]) < len(old):
                raise InputError(f"{folder} has {len(tensors[name])} rows for {len(old)} tokens.", _MEND)
            tensors[name] = match.rows(tensors[name], architecture.rows)
    copy_tensors(encoder_tensors(language_model_encoder(model)), encoder, path)
    copy_tensors(decoder_tensors(model), decoder, folder / "decoder.safetensors")
    with torch.no_grad():
        silence(model[1].decoder.weight, model[1].decoder.bias, len(vocabulary))
    return match


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
