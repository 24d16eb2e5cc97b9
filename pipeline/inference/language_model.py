"""A sealed language model folder, ready for use: ids in, logits of the next token out, with no training code.

Shapes: B rows, T tokens of a step, D embedding size, V embedding rows (the vocabulary and a few that no token uses).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.artifact import open_artifact
from pipeline.errors import InputError
from pipeline.inference.encoder import Encoder, State, fill, load_encoder
from pipeline.model.architecture import Architecture
from pipeline.settings import RunSettings
from pipeline.text.text_encoder import TextEncoder
from pipeline.text.vocabulary import read_vocabulary
from pipeline.training.device import Device, resolve_device


class Decoder(nn.Module):
    """Outputs of the encoder [..., D] -> logits [..., V]. A tied decoder has no weight but the embedding's."""

    weight: nn.Parameter | None

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        rows = architecture.rows
        self.bias = nn.Parameter(torch.empty(rows))
        self.weight = None if architecture.tie_weights else nn.Parameter(torch.empty(rows, architecture.emb_sz))

    def forward(self, output: Tensor, embedding: Tensor) -> Tensor:
        """`embedding` [V, D] is the encoder's."""
        return F.linear(output, embedding if self.weight is None else self.weight, self.bias)


class LanguageModel(nn.Module):
    """Encoder and decoder. Their arithmetic may be of lower precision; logits are float32."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """ids [B, T] and the state before them -> logits [B, T, V] of the token after each, and the state after all.

        `state` None is the beginning of the text.
        """
        output, after = self.encoder(ids, state)
        return self.decode(output), after

    def decode(self, output: Tensor) -> Tensor:
        """Logits [..., V], float32, of encoder outputs [..., D]."""
        logits: Tensor = self.decoder(output, self.encoder.embedding.weight)
        return logits.float()


@dataclass(frozen=True)
class LanguageModelBundle:
    """Everything a sealed language model folder holds, loaded."""

    path: Path
    fingerprint: str
    text: TextEncoder
    vocabulary: list[str]
    """Token of each id; logits of higher ids mean nothing."""
    model: LanguageModel
    direction: str
    """fwd or bwd: bwd reads and writes text from its end."""
    device: Device


def load_language_model_bundle(folder: Path, run: RunSettings | None = None) -> LanguageModelBundle:
    """The language model sealed in `folder`, on the device and in the precision that `run` asks for.

    Raises InputError if it is not a sealed language model, is damaged, or has parts that do not fit together.
    """
    artifact = open_artifact(folder, "lm")
    for name in ("vocabulary.json", "tokenizer/tokenizer.json", "encoder.safetensors"):
        artifact.file(name)
    architecture = Architecture.load(artifact.file("architecture.json"))
    with torch.device("meta"):
        decoder = Decoder(architecture)
    fill(decoder, artifact.file("decoder.safetensors"))
    device = resolve_device(run or RunSettings())
    model = LanguageModel(load_encoder(folder), decoder).to(device.device, device.dtype).eval().requires_grad_(False)
    vocabulary = read_vocabulary(folder)
    if len(vocabulary) != architecture.vocabulary_size:
        raise InputError(
            f"The parts of {folder} do not fit together: {len(vocabulary):,} tokens, but an architecture for "
            f"{architecture.vocabulary_size:,}.",
            "Train the language model again.",
        )
    return LanguageModelBundle(
        folder, artifact.manifest.fingerprint, TextEncoder.load(folder), vocabulary, model,
        artifact.manifest.identity["direction"], device,
    )
