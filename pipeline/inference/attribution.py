"""Which words made a classifier decide as it did: one number for each token of one document, for one class.

The number is input x gradient (Shrikumar et al. 2016, arXiv:1605.01713; for text Li et al. 2016, arXiv:1506.01066):
the gradient of the class's log-odds with respect to the token's embedding, multiplied by that embedding and summed.
It is the change of the log-odds, to first order, if the embedding were taken away. Above 0 the token speaks for the
class, below 0 against it. It is the linear part of the model only: words that work together share it as they may.
Shapes: T tokens, D embedding size, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.inference.bundle import LoadedClassifier
from pipeline.inference.classifier import Classifier, pooled_from
from pipeline.inference.encoder import State
from pipeline.text.rules import MAJ, REP, SPACE, SPECIAL_TOKENS, UP, WREP
from pipeline.text.tokenizer import Tokenizer

METHOD = "input x gradient of the class's log-odds"
GRADIENT_TOKENS = 2000
"""A longer document has numbers for this many tokens, those read last; its activations would fill the memory."""


@dataclass(frozen=True)
class Word:
    """A word of a document, as people write it."""

    text: str
    value: float
    """Sum over its tokens."""
    glued: bool
    """No space between it and the word before it."""


def attribute(
    classifier: LoadedClassifier, ids: NDArray[Any], class_id: int, *, gradient_tokens: int = GRADIENT_TOKENS,
    between_steps: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Contribution [T] of each token of a document, given as ids from its beginning, to the log-odds of a class.

    NaN for all but the `gradient_tokens` tokens that the model reads last. `between_steps` may end the work by an
    exception.
    """
    model, step = classifier.model, -1 if classifier.direction == "bwd" else 1
    reading = torch.from_numpy(ids[::step].astype(np.int64)).to(model.encoder.embedding.weight.device)
    n_before = max(len(ids) - gradient_tokens, 0)
    found = np.full(len(ids), np.nan)
    # cuDNN has no backward pass of an LSTM in eval mode.
    with classifier.device.kernels(), torch.backends.cudnn.flags(enabled=False):
        before, state = _read(model, reading[:n_before], between_steps)
        between_steps()

        def score(embedded: Tensor) -> Tensor:
            logits = _logits(model, embedded, before, state)
            between_steps()
            return log_odds(logits, class_id)

        found[n_before:] = input_x_gradient(model.encoder.embedding(reading[n_before:]), score)
    return found[::step]


def input_x_gradient(embedded: Tensor, score: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
    """Contribution [T] of each row of `embedded` [T, D] to `score(embedded)`, a scalar."""
    leaf = embedded.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf), leaf)
    contributions: NDArray[np.float64] = (leaf.detach().double() * gradient.double()).sum(dim=1).cpu().numpy()
    return contributions


def log_odds(logits: Tensor, class_id: int) -> Tensor:
    """Log of p / (1 - p) [...] of a class, from logits [..., C]; C is 2 or more."""
    others = torch.cat([logits[..., :class_id], logits[..., class_id + 1 :]], dim=-1)
    return logits[..., class_id] - torch.logsumexp(others, dim=-1)


def _read(
    model: Classifier, reading: Tensor, between_steps: Callable[[], None]
) -> tuple[list[Tensor], State | None]:
    """Outputs [T, D] and state after the tokens that get no gradient, in steps of `seq_len`."""
    outputs: list[Tensor] = []
    state: State | None = None
    with torch.no_grad():
        for part in torch.split(reading, model.shape.seq_len) if len(reading) else ():
            between_steps()
            output, state = model.encoder(part[None], state)
            outputs.append(output[0])
    return outputs, state


def _logits(model: Classifier, embedded: Tensor, before: Sequence[Tensor], state: State | None) -> Tensor:
    """Logits [C] of a document: what `Classifier.forward` gives, by operations that have a gradient."""
    output, _ = model.encoder.read(embedded[None], state)
    outputs = torch.cat([*before, output[0]]).float()
    start = int(pooled_from(np.array([len(outputs)]), model.shape)[0])
    pooled = outputs[start:]
    logits: Tensor = model.head(torch.cat([outputs[-1], pooled.amax(dim=0), pooled.mean(dim=0)])[None])
    return logits[0]


def words(tokenizer: Tokenizer, tokens: Sequence[str], values: Sequence[float]) -> list[Word]:
    """Words and punctuation marks with the sums of their tokens; a mark such as xxmaj counts for what it acts on.

    Tokens without a written form (xxbos) make no word; their numbers are left out.
    """
    found: list[Word] = []
    before: list[str] = []
    for group in word_groups(tokenizer, tokens):
        own = [tokens[i] for i in group]
        text = tokenizer.detokenize(own)
        if text.strip():
            glued = bool(before) and tokenizer.detokenize([*before, *own]) == tokenizer.detokenize(before) + text
            found.append(Word(text, float(sum(values[i] for i in group)), glued))
            before = own
    return found


def word_groups(tokenizer: Tokenizer, tokens: Sequence[str]) -> list[list[int]]:
    """Positions of the tokens of each word; a token without a written form (xxbos) is a group of its own."""
    spaces_are_tokens = tokenizer.kind != "word"
    groups: list[list[int]] = []
    waits = 0
    """Tokens that belong to the open group whatever they are."""
    for i, token in enumerate(tokens):
        continues = (
            spaces_are_tokens and bool(groups) and not token.startswith(SPACE) and token not in SPECIAL_TOKENS
            and tokens[i - 1] not in SPECIAL_TOKENS and _is_word(token) and _is_word(tokens[i - 1])
        )
        if waits or continues:
            groups[-1].append(i)
            # A piece that is but the space before a word is not yet the word.
            waits = max(waits - 1, 0) if token != SPACE or not waits else waits
        else:
            groups.append([i])
            waits = int(token == SPACE)
        waits += {MAJ: 1, UP: 1, REP: 2, WREP: 2}.get(token, 0)
    return groups


def _is_word(token: str) -> bool:
    """False for punctuation, which stands for itself."""
    return any(c.isalnum() or c in "'\u2019" + SPACE for c in token)
