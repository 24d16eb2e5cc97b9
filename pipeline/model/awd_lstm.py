"""fastai's AWD_LSTM built from an `Architecture`: as language model and as classifier.

Shapes: B rows of a batch, T tokens, V embedding rows, D embedding size, C classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from fastai.text.models.awdlstm import AWD_LSTM, EmbeddingDropout, WeightDropout, dropout_mask
from fastai.text.models.core import (
    LinearDecoder,
    PoolingLinearClassifier,
    SentenceEncoder,
    SequentialRNN,
    masked_concat_pool,
)
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from pipeline.model.architecture import PAD_ID, Architecture, HeadShape
from pipeline.model.lstm import Lstm
from pipeline.training_settings import FinetuneLMSettings, TrainClassifierSettings


class _WeightDropout(WeightDropout):
    """fastai's, but for a probability of 0: there it assigns the parameter itself, which torch cannot take back.

    For the gradient of every chunk of a document a classifier keeps a mask of bytes and, under autocast on a CPU, the
    weights in its type; fastai keeps a mask and the weights in float32.
    """

    def _setweights(self) -> None:
        if not self.weight_p:
            self.reset()
            return
        for layer in self.layer_names:
            raw = getattr(self, f"{layer}_raw")
            setattr(self.module, layer, _drop(raw, self.weight_p) if self.training else raw.clone())


def _drop(weights: Tensor, p: float) -> Tensor:
    # On CUDA all of an LSTM's weights have to be of one type: torch refuses others, and casts them itself.
    casts = weights.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    dropped: Tensor = _DroppedWeights.apply(weights, p, torch.get_autocast_dtype("cpu") if casts else weights.dtype)
    return dropped


class _DroppedWeights(Function):
    """`F.dropout`, whose result is of another type at once; drawing the same numbers where the type stays."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, p: float, dtype: torch.dtype) -> Tensor:
        ctx.dtype = weights.dtype
        if dtype == weights.dtype:
            noise, ctx.factor = torch.empty_like(weights).bernoulli_(1 - p), 1 / (1 - p)
            ctx.save_for_backward(noise.to(torch.bool))
            return noise.div_(1 - p).mul_(weights)
        kept, share = _kept(weights.shape, 1 - p)
        ctx.factor = 1 / share
        ctx.save_for_backward(kept)
        return (weights * kept).mul_(ctx.factor).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (kept,) = ctx.saved_tensors
        return (gradients[0] * kept).to(ctx.dtype).mul_(ctx.factor), None, None


def _kept(shape: torch.Size, share: float) -> tuple[Tensor, float]:
    """True at `share` of the places, to one in 65,536, and the share it is; a seventh of the time of `bernoulli_`.

    Each number of 64 bits that torch draws decides on four places; without `from`, its highest bit would be 0.
    """
    kept_of_2_16 = max(1, round(share * 2**16))
    n_places = shape.numel()
    drawn = torch.empty(-(-n_places // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    return (drawn.view(torch.int16)[:n_places] <= kept_of_2_16 - 2**15 - 1).view(shape), kept_of_2_16 / 2**16


class _EmbeddingDropout(EmbeddingDropout):
    """fastai's, but it drops out the rows that are looked up, not those of the whole embedding."""

    def forward(self, words: Tensor) -> Tensor:
        rows: Tensor = self.emb(words)
        if not (self.training and self.embed_p):
            return rows
        weight = self.emb.weight.data
        return rows * F.embedding(words, dropout_mask(weight, (len(weight), 1), self.embed_p))


class _Decoder(LinearDecoder):
    """fastai's, which can leave the logits to a `DecoderLoss`."""

    logits = True

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dropped = self.output_dp(input)
        return self.decoder(dropped) if self.logits else dropped, input, dropped


class AwdLstm(AWD_LSTM):
    """fastai's AWD_LSTM, trainable without weight dropout too."""

    def __init__(self, vocab_sz: int, *, embed_p: float, **config: Any) -> None:
        super().__init__(vocab_sz, embed_p=embed_p, **config)
        self.encoder_dp = _EmbeddingDropout(self.encoder, embed_p)

    def _one_rnn(self, n_in: int, n_out: int, bidir: bool, weight_p: float, layer: int) -> Any:
        return _WeightDropout(Lstm(n_in, n_out, 1, batch_first=True, bidirectional=bidir), weight_p)


class _SentenceEncoder(SentenceEncoder):
    """fastai's, which asks the device once for each batch, not for each chunk, how many rows have begun.

    Chunks that are not pooled keep nothing for a gradient, since none reaches them. The longest row may be elsewhere:
    chunks in which no row has begun, or without rows at all, give zeros.
    """

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        self.reset()
        mask = input == self.pad_idx
        rows, length = input.shape
        outputs: list[Tensor | int] = []
        for start, begun in zip(range(0, length, self.bptt), (~mask[:, :: self.bptt]).sum(0).tolist(), strict=True):
            pooled = length - start <= self.max_len
            if not begun:
                if pooled:
                    outputs.append(min(self.bptt, length - start))
                continue
            with torch.set_grad_enabled(pooled and torch.is_grad_enabled()):
                output = self.module(input[:begun, start : start + self.bptt])
            if pooled:
                outputs.append(output if begun == rows else F.pad(output, (0, 0, 0, 0, 0, rows - begun)))
        together = torch.cat(self._filled(outputs, input), dim=1)
        return together, mask[:, length - together.shape[1] :]

    def _filled(self, outputs: list[Tensor | int], input: Tensor) -> list[Tensor]:
        """Zeros of the type of the others where there is only a number of tokens."""
        found = next((output for output in outputs if isinstance(output, Tensor)), None)
        if found is None:
            kind, dtype = input.device.type, self.module.encoder.weight.dtype
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else dtype
            found = torch.zeros((), dtype=dtype, device=input.device)
        rows, size = len(input), self.module.emb_sz
        return [o if isinstance(o, Tensor) else found.new_zeros(rows, o, size) for o in outputs]


class _PoolingClassifier(PoolingLinearClassifier):
    """fastai's, whose pooled features can be put together with those of other processes before the head sees them."""

    together: Callable[[Tensor], Tensor] | None = None

    def forward(self, input: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        outputs, mask = input
        features = masked_concat_pool(outputs, mask, self.bptt)
        if self.together is not None:
            features = self.together(features)
        return self.layers(features), outputs, outputs


def build_language_model(
    architecture: Architecture, settings: FinetuneLMSettings | None = None, *, logits: bool = True
) -> SequentialRNN:
    """Encoder and decoder: ids [B, T] -> (logits [B, T, V], raw output [B, T, D], dropped-out output [B, T, D]).

    Without `settings` there is no dropout: for use, not for training. Without `logits` the dropped-out output stands in
    their place, for `decoder_loss.DecoderLoss`.
    """
    dropout = _dropout(settings)
    output_p = dropout.pop("output_p")
    encoder = AwdLstm(architecture.rows, **_shape(architecture), **dropout)
    decoder = _Decoder(
        architecture.rows, architecture.emb_sz, output_p,
        tie_encoder=encoder.encoder if architecture.tie_weights else None,
    )
    decoder.logits = logits
    return SequentialRNN(encoder, decoder)


def build_classifier(
    architecture: Architecture, head: HeadShape, settings: TrainClassifierSettings | None = None
) -> SequentialRNN:
    """Encoder over whole documents, concat pooling (ULMFiT sec. 3.3) and a head: ids [B, T] -> (logits [B, C], ...).

    Rows must be sorted by length, longest first, and padded as `training.loaders.pad_documents` does.
    Without `settings` there is no dropout: for use, not for training.
    """
    dropout = _dropout(settings)
    output_p = dropout.pop("output_p")
    encoder = AwdLstm(architecture.rows, **_shape(architecture), **dropout)
    sizes = [3 * architecture.emb_sz, *head.lin_ftrs, head.n_classes]
    ps = [output_p, *([settings.head_p if settings else 0.0] * len(head.lin_ftrs))]
    return SequentialRNN(
        _SentenceEncoder(head.seq_len, encoder, pad_idx=PAD_ID, max_len=head.max_len),
        _PoolingClassifier(sizes, ps, bptt=head.seq_len),
    )


def _shape(architecture: Architecture) -> dict[str, Any]:
    return {
        "emb_sz": architecture.emb_sz, "n_hid": architecture.n_hid, "n_layers": architecture.n_layers,
        "pad_token": PAD_ID, "bidir": False,
    }


def _dropout(settings: FinetuneLMSettings | TrainClassifierSettings | None) -> dict[str, float]:
    names = ("output_p", "hidden_p", "input_p", "embed_p", "weight_p")
    return {name: getattr(settings, name) * settings.drop_mult if settings else 0.0 for name in names}
