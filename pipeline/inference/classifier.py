"""The ULMFiT classifier as it is used: plain encoder, concat pooling and the head.

It gives what fastai's SentenceEncoder, masked_concat_pool and PoolingLinearClassifier give in eval mode for the
document alone, for documents of any length in any company, in memory that does not grow with their length. One thing
differs: xxpad in a text is a token like any other here, where fastai takes it for padding and may skip what follows.
Shapes: B documents, T tokens of a step, D embedding size, C classes.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.inference.encoder import Encoder, fill, load_encoder
from pipeline.inference.pooling import Rows, concat_pooled
from pipeline.inference.ragged import Lengths
from pipeline.model.architecture import Architecture, HeadShape


class Classifier(nn.Module):
    """Encoder, pooling and head. The encoder may be of lower precision; pooling and head are float32."""

    def __init__(self, encoder: Encoder, head: nn.Sequential, shape: HeadShape) -> None:
        super().__init__()
        self.encoder, self.head, self.shape = encoder, head, shape

    def forward(self, rows: Rows, step_tokens: int, between_steps: Callable[[], None] = lambda: None) -> Tensor:
        """Logits [B, C], float32, of `rows`, longest first, read in steps of at most `step_tokens` tokens.

        `between_steps` is called before each step and may end the work by an exception.
        """
        starts = pooled_from(np.array([len(row) for row in rows], dtype=np.int64), self.shape)
        logits: Tensor = self.head(concat_pooled(self.encoder, rows, starts, step_tokens, between_steps))
        return logits


def pooled_from(lengths: Lengths, shape: HeadShape) -> Lengths:
    """Where the pooled tokens of documents begin: all before are only read.

    The trained model keeps whole chunks of `seq_len` tokens, as many as fit into `max_len`, counted from the end of
    the padded batch. As every document is padded to whole chunks there, that is the same in any company. (With
    `max_len` below `seq_len` it can read no document longer than `max_len`; one chunk is pooled then.)
    """
    chunks = -(-lengths // shape.seq_len)
    kept = max(shape.max_len // shape.seq_len, 1)
    return np.maximum(chunks - kept, 0) * shape.seq_len


def load_classifier(folder: Path, dtype: torch.dtype, device: torch.device, *, int8: bool = False) -> Classifier:
    """The classifier in `folder`, ready for use: its encoder converted to `dtype` once, all on `device`.

    `int8`: with LSTM weights in 8 bits, on a CPU.

    Raises InputError, naming the first, for a tensor that does not fit the architecture.
    """
    architecture, shape = Architecture.load(folder / "architecture.json"), HeadShape.load(folder / "head.json")
    with torch.device("meta"):
        head = build_head(3 * architecture.emb_sz, shape)
    fill(head, folder / "head.safetensors")
    encoder = load_encoder(folder)
    if int8:
        encoder.round_to_int8()
    model = Classifier(encoder.to(device, dtype), head.to(device), shape)
    return model.eval().requires_grad_(False)


def build_head(n_features: int, shape: HeadShape) -> nn.Sequential:
    """fastai's LinBnDrop layers without their dropout; the names are those of head.safetensors."""
    sizes = [n_features, *shape.lin_ftrs, shape.n_classes]
    layers: list[nn.Module] = []
    for number, (n_in, n_out) in enumerate(pairwise(sizes), 1):
        parts: dict[str, nn.Module] = {"norm": nn.BatchNorm1d(n_in), "linear": nn.Linear(n_in, n_out, bias=False)}
        if number < len(sizes) - 1:
            parts["activation"] = nn.ReLU()
        layers.append(nn.Sequential(OrderedDict(parts)))
    return nn.Sequential(*layers)
