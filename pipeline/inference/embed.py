"""The `embed` command: a vector for each text, from the encoder of a classifier or a language model.

`concat` is what a ULMFiT classifier's head sees (sec. 3.3): the encoder's output after the last token, the largest
and the mean of its outputs at all tokens; `last`, `max` and `mean` are its parts. A classifier pools as many tokens as
it was trained to, a language model all. Shapes: N documents, D embedding size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from pipeline.artifact import open_artifact, read_manifest
from pipeline.errors import DivergedError, InputError
from pipeline.inference.bulk import Request, Wording, carry_out
from pipeline.inference.bundle import BS
from pipeline.inference.classifier import pooled_from
from pipeline.inference.encoder import Encoder, load_encoder
from pipeline.inference.models import find_model, run_settings
from pipeline.inference.outputs import Format
from pipeline.inference.pooling import Rows, concat_pooled
from pipeline.inference.ragged import plan_batches
from pipeline.inference.vectors import FORMATS, Matrix, Origin, Pooling, Vectors
from pipeline.model.architecture import HeadShape
from pipeline.progress import Reporter
from pipeline.settings import RunSettings
from pipeline.text.text_encoder import TextEncoder
from pipeline.training.device import Device, resolve_device

SLOTS = ("classifier", "lm")
STEP_TOKENS = 72
"""Tokens of a document that are read at once where no classifier says how many: fastai's seq_len."""
_PARTS = ("last", "max", "mean")
"""Of the concatenation, in their order."""
_WORDING = Wording("embed", "embedding", "embedded", "vectors", "the vector of an empty document")


@dataclass(frozen=True)
class Embedder:
    """The encoder of a sealed model, and what makes it a model of documents."""

    path: Path
    fingerprint: str
    text: TextEncoder
    encoder: Encoder
    head: HeadShape | None
    """A classifier's; it says how much of a long document is pooled. None: a language model's encoder."""
    direction: str
    device: Device

    def size(self, pooling: Pooling) -> int:
        """Numbers of a vector."""
        return self.encoder.embedding.embedding_dim * (len(_PARTS) if pooling == "concat" else 1)

    def vectors(
        self, documents: Rows, pooling: Pooling = "concat", *, bs: int = BS,
        between_steps: Callable[[], None] = lambda: None, done: Callable[[int], Any] = lambda n: None,
    ) -> Matrix:
        """Vectors [N, size] of documents given as ids, in their order, read in batches of `bs`.

        `between_steps` may end the work by an exception; `done` is told how many documents each batch had. Raises
        DivergedError for vectors that are no numbers.
        """
        found = np.zeros((len(documents), self.size(pooling)), dtype=np.float32)
        step_tokens = bs * (self.head.seq_len if self.head else STEP_TOKENS)
        for batch in plan_batches(np.array([len(d) for d in documents], dtype=np.int64), bs, step_tokens):
            found[batch] = self._pooled([documents[i] for i in batch], pooling, step_tokens, between_steps)
            done(len(batch))
        bad = int(np.count_nonzero(~np.isfinite(found).all(axis=1)))
        if bad:
            raise DivergedError(
                f"{self.path} gives vectors that are not finite for {bad:,} of {len(documents):,} texts.",
                "Try --precision fp32, or train the model again with a lower learning rate.",
            )
        return found

    def _pooled(
        self, rows: Rows, pooling: Pooling, step_tokens: int, between_steps: Callable[[], None]
    ) -> Matrix:
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        starts = pooled_from(lengths, self.head) if self.head else np.zeros_like(lengths)
        step = -1 if self.direction == "bwd" else 1
        with torch.inference_mode(), self.device.kernels():
            pooled = concat_pooled(self.encoder, [row[::step] for row in rows], starts, step_tokens, between_steps)
        if pooling != "concat":
            pooled = pooled.chunk(len(_PARTS), dim=1)[_PARTS.index(pooling)]
        vectors: Matrix = pooled.cpu().numpy()
        return vectors


def load_embedder(folder: Path, run: RunSettings | None = None) -> Embedder:
    """The encoder sealed in `folder`, on the device and in the precision that `run` asks for.

    Raises InputError if it is neither a sealed classifier nor a language model, or is damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.slot not in SLOTS:
        held = f"holds {manifest.slot}" if manifest else "is not there"
        raise InputError(f"{folder} {held}; only classifiers and language models can embed.", "Name another --model.")
    artifact = open_artifact(folder, manifest.slot)
    for name in ("architecture.json", "vocabulary.json", "tokenizer/tokenizer.json", "encoder.safetensors"):
        artifact.file(name)
    head = HeadShape.load(artifact.file("head.json")) if manifest.slot == "classifier" else None
    device = resolve_device(run or RunSettings())
    encoder = load_encoder(folder).to(device.device, device.dtype).eval().requires_grad_(False)
    text = TextEncoder.load(folder)
    if len(text.numbers) > encoder.embedding.num_embeddings:
        raise InputError(
            f"The parts of {folder} do not fit together: {len(text.numbers):,} tokens, but "
            f"{encoder.embedding.num_embeddings:,} embeddings.",
            "Train the model again.",
        )
    return Embedder(folder, manifest.fingerprint, text, encoder, head, manifest.identity["direction"], device)


def embed(request: Request, pooling: Pooling, reporter: Reporter, stdin: BinaryIO, stdout: BinaryIO) -> int:
    """Write the vectors of all texts; returns how many there were.

    Raises what `bulk.carry_out` raises, and DivergedError for vectors that are no numbers.
    """

    def load() -> _Embedding:
        folder = find_model(request.model, request.home, SLOTS)
        return _Embedding(load_embedder(folder, run_settings(request.precision, request.device)), pooling, request.bs)

    return carry_out(request, _WORDING, FORMATS, load, reporter=reporter, stdin=stdin, stdout=stdout)


@dataclass(frozen=True)
class _Embedding:
    """Vectors of texts."""

    embedder: Embedder
    pooling: Pooling
    bs: int

    @property
    def path(self) -> Path:
        return self.embedder.path

    @property
    def text(self) -> TextEncoder:
        return self.embedder.text

    @property
    def device(self) -> Device:
        return self.embedder.device

    @property
    def asked(self) -> dict[str, str]:
        return {"model": self.embedder.fingerprint, "pooling": self.pooling}

    def written_as(self, suffix: str) -> Format:
        size = self.embedder.size(self.pooling)
        return FORMATS[suffix](Origin(str(self.path.absolute()), self.embedder.fingerprint, self.pooling, size))

    def rows(
        self, ids: Sequence[str], documents: Rows, check: Callable[[], None], done: Callable[[int], Any]
    ) -> Vectors:
        return Vectors(
            ids, self.embedder.vectors(documents, self.pooling, bs=self.bs, between_steps=check, done=done)
        )
