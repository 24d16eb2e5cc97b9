"""What the language models of the ladder write: one prompt, continued by each, and how much of it only repeats.

A rung that reads windows without memory sees the last `seq_len` tokens each time, as in S3; the others go on with
their state. Models trained to predict the last token of a step alone go on token by token all the same.
Shapes: V tokens of the vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.artifact import Artifact
from pipeline.errors import DivergedError
from pipeline.inference.generate import ENDS, NEVER_WRITTEN, Sampling, draw, filtered
from pipeline.inference.language_model import load_language_model_bundle
from pipeline.ladder.fitting import WEIGHTS, weights
from pipeline.ladder.recurrent import build
from pipeline.ladder.rungs import LanguageModelSettings, Rung
from pipeline.ladder.windows import texts_of
from pipeline.model.weights import load_tensors
from pipeline.settings import RunSettings
from pipeline.text.ids import IdStore
from pipeline.text.text_encoder import TextEncoder

PROMPT_TOKENS, WRITTEN_TOKENS = 40, 200
REPEATED_TOKENS = 8
"""That many tokens which stood in the same order before are a repetition: the length of the windows of S3."""
GREEDY, SAMPLED = Sampling(temperature=0.0), Sampling()
Logits = NDArray[np.float32]
Reader = Callable[[Sequence[int]], Logits]
"""Given the tokens that come next in a text: logits [V] of the token after them."""


@dataclass(frozen=True)
class Written:
    """A continuation."""

    text: str
    """Prompt and continuation, as people write them."""
    repeated: float
    """Share of the continuation's runs of REPEATED_TOKENS that stand in it a second time."""


def prompt_of(ids: Artifact) -> str:
    """The beginning of the validation text; DataError if there is none."""
    store = IdStore.open(ids)
    tokens = [store.vocabulary[i] for i in texts_of(store)[1][:PROMPT_TOKENS]]
    # A mark inside would be read as text, and no text begins with the rest of a document.
    return TextEncoder.load(ids.path).tokenizer.detokenize([t for t in tokens if t not in ENDS])


def written_by(rung: Rung, artifact: Artifact, prompt: str, seed: int) -> dict[str, Written]:
    """How the sealed `rung` (or, without settings, the pipeline's own model) goes on after `prompt`.

    `greedy` always takes the most probable token, `sampled` draws as the command generate does, with `seed`. Raises
    DivergedError for logits that are no numbers.
    """
    read = _bundle_reader(artifact.path) if rung.settings is None else _rung_reader(rung, artifact)
    text = TextEncoder.load(artifact.path)
    ids = text.encode([prompt])[0]
    vocabulary = list(text.numbers)
    found = {}
    for name, sampling in (("greedy", GREEDY), ("sampled", SAMPLED)):
        start = ids if rung.settings is None else ids[1:]  # a rung reads running text, without the mark of a beginning
        tokens = list(_tokens(read(), start.tolist(), vocabulary, sampling, seed))
        whole = text.tokenizer.detokenize([vocabulary[i] for i in (*ids[1:], *tokens)])
        found[name] = Written(whole, repeated_share(tokens))
    return found


def repeated_share(tokens: Sequence[int], n: int = REPEATED_TOKENS) -> float:
    """Of the runs of `n` tokens in `tokens`, the share that is the same as one before; 0 if there are fewer tokens."""
    runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _tokens(
    read: Reader, start: list[int], vocabulary: list[str], sampling: Sampling, seed: int
) -> Iterator[int]:
    """WRITTEN_TOKENS ids after those of `start`; no document ends, so that all models write as much."""
    rng, logits = np.random.default_rng(seed), read(start)
    seen = np.zeros(len(vocabulary), dtype=bool)  # there is no repetition penalty
    allowed = np.array([token not in (*NEVER_WRITTEN, *ENDS) for token in vocabulary])
    for _ in range(WRITTEN_TOKENS):
        token = draw(filtered(logits[: len(vocabulary)], sampling, seen, allowed), rng.random())
        yield token
        logits = read([token])


def _rung_reader(rung: Rung, artifact: Artifact) -> Callable[[], Reader]:
    """Makes readers that begin anew."""
    settings = rung.settings
    assert isinstance(settings, LanguageModelSettings), rung.name
    vocabulary = len(TextEncoder.load(artifact.path).numbers)
    model = build(rung.name, vocabulary, settings).eval()
    load_tensors(weights(model), artifact.file(WEIGHTS))
    decoder = model[1].decoder

    def begin() -> Reader:
        model.reset()
        read: list[int] = []

        @torch.inference_mode()
        def reader(tokens: Sequence[int]) -> Logits:
            read.extend(tokens)
            given = tokens if settings.stride is None else read[-settings.seq_len :]
            output = model(torch.tensor([list(given)]))[0][0, -1]
            return _numbers(F.linear(output, decoder.weight, decoder.bias), artifact.path)

        return reader

    return begin


def _numbers(logits: Tensor, path: Path) -> Logits:
    found: Logits = logits.numpy()
    if not np.isfinite(found).all():
        raise DivergedError(f"{path} gives logits that are not finite.", "Train it again with a lower learning rate.")
    return found


def _bundle_reader(folder: Path) -> Callable[[], Reader]:
    bundle = load_language_model_bundle(folder, RunSettings(device="cpu", precision="fp32"))

    def begin() -> Reader:
        state: list[Any] = [None]

        @torch.inference_mode()
        def reader(tokens: Sequence[int]) -> Logits:
            output, state[0] = bundle.model(torch.tensor([list(tokens)]), state[0])
            return _numbers(output[0, -1], folder)

        return reader

    return begin
