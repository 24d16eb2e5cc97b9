"""Text written by a language model: a prompt, continued token by token, in several samples at once.

The distribution of the next token goes through these filters, in this order; probabilities are made to sum to 1 again
after each, and all but the temperature are off by default:
1. Tokens that no one writes (xxunk, xxpad, xxfld) are taken out. xxbos and xxeos end the document.
2. Repetition penalty (Keskar et al. 2019, arXiv:1909.05858): the logit of a token that prompt or sample hold already is
   divided by it. A logit below 0 is multiplied instead, or the penalty would be a reward (as in transformers). Marks of
   capitals and repeats are spelling and not penalized.
3. Temperature: logits are divided by it. 0 takes the most probable token, always.
4. Top-k: the k most probable tokens.
5. Nucleus, top-p (Holtzman et al. 2019, arXiv:1904.09751): the fewest most probable tokens that have p together.
6. Min-p (Nguyen et al. 2024, arXiv:2407.01082): tokens at least p times as probable as the most probable.
Shapes: V tokens of the vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DivergedError, UsageError
from pipeline.inference.encoder import State
from pipeline.inference.language_model import LanguageModelBundle
from pipeline.text.rules import BOS, EOS, FLD, PAD, REP, SPECIAL_TOKENS, UNK, WREP
from pipeline.text.tokenizer import Tokenizer

NEVER_WRITTEN = (UNK, PAD, FLD)
ENDS = (BOS, EOS)
PROMPT_STEP_TOKENS = 1024
"""The prompt is read in steps of that many tokens, so that memory does not grow with it."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the module tells what each filter does."""

    temperature: float = 0.75
    """The default is that of fastai's IMDB tutorial."""
    top_k: int = 0
    """0: off."""
    top_p: float = 1.0
    """1: off."""
    min_p: float = 0.0
    """0: off."""
    repetition_penalty: float = 1.0
    """1: off."""
    max_tokens: int = 100
    """Tokens of a sample at most, marks of capitals and repeats included."""
    seed: int = 42

    def __post_init__(self) -> None:
        """Raises UsageError for a value outside its range."""
        for name, good, must in (
            ("temperature", 0 <= self.temperature < math.inf, "0 (the most probable token, always) or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p <= 1, "0 (off) to 1"),
            ("repetition_penalty", 0.1 <= self.repetition_penalty < math.inf, "0.1 or more; 1 is off, 1.2 is usual"),
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("seed", self.seed >= 0, "0 or more"),
        ):
            if not good:
                raise UsageError(f"{name} cannot be {getattr(self, name)}.", f"It must be {must}.")


@dataclass(frozen=True)
class Prompt:
    """What is continued."""

    text: str
    tokens: tuple[str, ...]
    """In the order of the text, without xxbos; words outside the vocabulary are xxunk."""
    backward: bool
    """The model writes what comes before it."""
    tokenizer: Tokenizer

    @property
    def unknown(self) -> int:
        """Tokens that are outside the vocabulary."""
        return self.tokens.count(UNK)


@dataclass(frozen=True)
class Sample:
    """One continuation of a prompt, as far as it is written."""

    prompt: Prompt
    tokens: tuple[str, ...] = ()
    """As they were written; a backward model writes the last of the text first."""
    ended: Literal["document", "max_tokens"] | None = None
    """Why it is complete: the model ended the document, or `max_tokens` are written. None: it goes on."""

    @property
    def written(self) -> str:
        """What the model wrote, as people write it, with the space that parts it from the prompt."""
        return self._parts()[0]

    @property
    def text(self) -> str:
        """Prompt and continuation, as people write them; the last word can still change while it goes on."""
        return self._parts()[1]

    def _parts(self) -> tuple[str, str]:
        prompt, detokenize = self.prompt, self.prompt.tokenizer.detokenize
        own = self.tokens[::-1] if prompt.backward else _without_open_repeat(self.tokens)
        known = detokenize(prompt.tokens)
        if prompt.backward:
            whole = detokenize([*own, *prompt.tokens])
            if whole.endswith(known):
                written = whole.removesuffix(known)
                return written, written + prompt.text.lstrip()
        else:
            whole = detokenize([*prompt.tokens, *own])
            if whole.startswith(known):
                written = whole.removeprefix(known)
                return written, prompt.text.rstrip() + written
        # What was written changed a word of the prompt: gave it a capital, or a longer ending.
        return detokenize(own), whole


def generate(
    bundle: LanguageModelBundle, prompt: str, sampling: Sampling, n_samples: int = 1
) -> Iterator[list[Sample]]:
    """Continue `prompt` in `n_samples` samples; yields all of them after each step of one token.

    Ends when every sample has ended; may be left after any step. An empty prompt begins a document. A backward model
    writes what comes before the prompt. Each sample has random numbers of its own, drawn from seed and number, so it is
    the same in any number of samples (as far as sums of another batch size round alike).

    Raises UsageError if `n_samples` is below 1, DivergedError for logits that are no numbers.
    """
    if n_samples < 1:
        raise UsageError(f"{n_samples} samples cannot be written.", "Ask for 1 or more.")
    return _Writer(bundle, prompt, sampling, n_samples).steps()


class _Writer:
    """The samples of one prompt and the state of the model after each."""

    def __init__(self, bundle: LanguageModelBundle, prompt: str, sampling: Sampling, n_samples: int) -> None:
        self._bundle, self._sampling = bundle, sampling
        backward = bundle.direction == "bwd"
        ids = bundle.text.encode([prompt])[0]
        words = ids[1:]
        self._reading = np.concatenate([ids[:1], words[::-1]]) if backward else ids
        tokens = tuple(bundle.vocabulary[i] for i in words)
        self._samples = [Sample(Prompt(prompt, tokens, backward, bundle.text.tokenizer))] * n_samples
        self._random = [np.random.default_rng([sampling.seed, number]) for number in range(n_samples)]
        self._allowed = np.array([token not in NEVER_WRITTEN for token in bundle.vocabulary])
        self._is_special = np.array([token in SPECIAL_TOKENS for token in bundle.vocabulary])
        self._seen = np.zeros((n_samples, len(bundle.vocabulary)), dtype=bool)
        self._seen[:, words] = True
        self._seen[:, self._is_special] = False

    def steps(self) -> Iterator[list[Sample]]:
        """All samples after each token."""
        logits, state = self._read_prompt()
        alive = list(range(len(self._samples)))
        while alive:
            chosen = [self._choose(row, number) for row, number in zip(logits, alive, strict=True)]
            for number, token in zip(alive, chosen, strict=True):
                self._write(number, token)
            yield list(self._samples)
            going = [row for row, number in enumerate(alive) if self._samples[number].ended is None]
            alive = [alive[row] for row in going]
            if alive:
                logits, state = self._step([chosen[row] for row in going], _rows(state, going))

    def _read_prompt(self) -> tuple[NDArray[np.float32], State]:
        """Logits [N, V] and state after the prompt: read once, the same for all samples."""
        state: State | None = None
        reading = torch.from_numpy(self._reading).to(self._bundle.device.device)
        with torch.inference_mode(), self._bundle.device.kernels():
            for part in torch.split(reading, PROMPT_STEP_TOKENS):
                output, state = self._bundle.model.encoder(part[None], state)
            logits = self._numbers(self._bundle.model.decode(output[:, -1]))
        assert state is not None
        n_samples = len(self._samples)
        return np.repeat(logits, n_samples, axis=0), _rows(state, [0] * n_samples)

    def _step(self, tokens: Sequence[int], state: State) -> tuple[NDArray[np.float32], State]:
        """Logits [N, V] and state after one more token of each of N samples."""
        ids = torch.tensor(tokens, device=self._bundle.device.device)[:, None]
        # Left before anything is yielded: these modes would otherwise reach the caller.
        with torch.inference_mode(), self._bundle.device.kernels():
            logits, state = self._bundle.model(ids, state)
            return self._numbers(logits[:, -1]), state

    def _numbers(self, logits: Tensor) -> NDArray[np.float32]:
        known: NDArray[np.float32] = logits[:, : len(self._bundle.vocabulary)].cpu().numpy()
        if not np.isfinite(known).all():
            raise DivergedError(
                f"{self._bundle.path} gives logits that are not finite.",
                "Try --precision fp32, or train the language model again with a lower learning rate.",
            )
        return known

    def _choose(self, logits: NDArray[np.float32], number: int) -> int:
        allowed = self._allowed
        if not self._samples[number].tokens and not self._samples[number].prompt.tokens:
            allowed = allowed & ~np.isin(self._bundle.vocabulary, ENDS)  # no document is empty
        return draw(filtered(logits, self._sampling, self._seen[number], allowed), self._random[number].random())

    def _write(self, number: int, token: int) -> None:
        sample, name = self._samples[number], self._bundle.vocabulary[token]
        if name in ENDS:
            self._samples[number] = replace(sample, ended="document")
            return
        tokens = (*sample.tokens, name)
        self._samples[number] = replace(
            sample, tokens=tokens, ended="max_tokens" if len(tokens) == self._sampling.max_tokens else None
        )
        self._seen[number, token] = not self._is_special[token]


def filtered(
    logits: NDArray[Any], sampling: Sampling, seen: NDArray[np.bool_], allowed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Probabilities [V] of the next token after all filters, from its logits [V].

    `seen` [V] are the tokens to which the repetition penalty applies; tokens not `allowed` [V] get 0.
    """
    scores = logits.astype(np.float64)
    penalty = sampling.repetition_penalty
    scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
    scores[~allowed] = -np.inf
    if sampling.temperature == 0:
        greedy = np.zeros_like(scores)
        greedy[scores.argmax()] = 1.0
        return greedy
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the most probable only
        probabilities = np.exp((scores - scores.max()) / sampling.temperature)
    probabilities /= probabilities.sum()
    if sampling.top_k or sampling.top_p < 1:
        order = np.argsort(-probabilities, kind="stable")
        if sampling.top_k:
            probabilities = _only(probabilities, order[: sampling.top_k])
        if sampling.top_p < 1:
            n_kept = int(np.searchsorted(probabilities[order].cumsum(), sampling.top_p)) + 1
            probabilities = _only(probabilities, order[:n_kept])
    return _only(probabilities, np.flatnonzero(probabilities >= sampling.min_p * probabilities.max()))


def _only(probabilities: NDArray[np.float64], kept: NDArray[np.int64]) -> NDArray[np.float64]:
    left = np.zeros_like(probabilities)
    left[kept] = probabilities[kept]
    return left / left.sum()


def draw(probabilities: NDArray[np.float64], number: float) -> int:
    """The token that a random number of [0, 1) falls on."""
    possible = np.flatnonzero(probabilities)
    ends = probabilities[possible].cumsum()
    return int(possible[min(int(np.searchsorted(ends, number * ends[-1], side="right")), len(possible) - 1)])


def _rows(state: State, rows: Sequence[int]) -> State:
    """The state of those rows of a batch."""
    return [(hidden[:, rows].contiguous(), cell[:, rows].contiguous()) for hidden, cell in state]


def _without_open_repeat(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Without a mark of repetition at the end whose count or word is yet to come."""
    for length in (1, 2):
        if tokens[-length:][:1] in ((REP,), (WREP,)):
            return tokens[:-length]
    return tokens
