"""fastai's AWD_LSTM built from an `Architecture`: as language model and as classifier.

Shapes: B rows of a batch, T tokens, V embedding rows, D embedding size, C classes.
"""

from typing import Any

from fastai.text.models.awdlstm import AWD_LSTM, EmbeddingDropout, WeightDropout, dropout_mask
from fastai.text.models.core import LinearDecoder, SequentialRNN, _model_meta, get_text_classifier
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.model.architecture import PAD_ID, Architecture, HeadShape
from pipeline.settings import FinetuneLMSettings, TrainClassifierSettings


class _WeightDropout(WeightDropout):
    """fastai's, but for a probability of 0: there it assigns the parameter itself, which torch cannot take back."""

    def _setweights(self) -> None:
        if self.weight_p:
            super()._setweights()
        else:
            self.reset()


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
        return _WeightDropout(nn.LSTM(n_in, n_out, 1, batch_first=True, bidirectional=bidir), weight_p)


_model_meta[AwdLstm] = _model_meta[AWD_LSTM]  # fastai's builders look an architecture up here


def build_language_model(
    architecture: Architecture, settings: FinetuneLMSettings | None = None, *, logits: bool = True
) -> SequentialRNN:
    """Encoder and decoder: ids [B, T] -> (logits [B, T, V], raw output [B, T, D], dropped-out output [B, T, D]).

    Without `settings` there is no dropout: for use, not for training. Without `logits` the dropped-out output stands in
    their place, for `decoder_loss.DecoderLoss`.
    """
    dropout = _dropout(settings, settings.drop_mult if settings else 0.0)
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
    config = {**_shape(architecture), **_dropout(settings)}
    return get_text_classifier(
        AwdLstm, architecture.rows, head.n_classes, seq_len=head.seq_len, config=config,
        drop_mult=settings.drop_mult if settings else 0.0, lin_ftrs=list(head.lin_ftrs),
        ps=[settings.head_p if settings else 0.0] * len(head.lin_ftrs), pad_idx=PAD_ID, max_len=head.max_len,
    )


def _shape(architecture: Architecture) -> dict[str, Any]:
    return {
        "emb_sz": architecture.emb_sz, "n_hid": architecture.n_hid, "n_layers": architecture.n_layers,
        "pad_token": PAD_ID, "bidir": False,
    }


def _dropout(
    settings: FinetuneLMSettings | TrainClassifierSettings | None, factor: float = 1.0
) -> dict[str, float]:
    names = ("output_p", "hidden_p", "input_p", "embed_p", "weight_p")
    return {name: getattr(settings, name) * factor if settings else 0.0 for name in names}
