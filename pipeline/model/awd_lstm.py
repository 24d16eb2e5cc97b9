"""fastai's AWD_LSTM built from an `Architecture`: as language model and as classifier.

Shapes: B rows of a batch, T tokens, V embedding rows, D embedding size, C classes.
"""

from typing import Any

from fastai.text.models.awdlstm import AWD_LSTM, WeightDropout
from fastai.text.models.core import SequentialRNN, _model_meta, get_language_model, get_text_classifier
from torch import nn

from pipeline.model.architecture import PAD_ID, Architecture, HeadShape
from pipeline.settings import FinetuneLMSettings, TrainClassifierSettings


class _WeightDropout(WeightDropout):
    """fastai's, but for a probability of 0: there it assigns the parameter itself, which torch cannot take back."""

    def _setweights(self) -> None:
        if self.weight_p:
            super()._setweights()
        else:
            self.reset()


class AwdLstm(AWD_LSTM):
    """fastai's AWD_LSTM, trainable without weight dropout too."""

    def _one_rnn(self, n_in: int, n_out: int, bidir: bool, weight_p: float, layer: int) -> Any:
        return _WeightDropout(nn.LSTM(n_in, n_out, 1, batch_first=True, bidirectional=bidir), weight_p)


_model_meta[AwdLstm] = _model_meta[AWD_LSTM]  # fastai's builders look an architecture up here


def build_language_model(architecture: Architecture, settings: FinetuneLMSettings | None = None) -> SequentialRNN:
    """Encoder and decoder: ids [B, T] -> (logits [B, T, V], raw output [B, T, D], dropped-out output [B, T, D]).

    Without `settings` there is no dropout: for use, not for training.
    """
    config = {
        "emb_sz": architecture.emb_sz, "n_hid": architecture.n_hid, "n_layers": architecture.n_layers,
        "pad_token": PAD_ID, "bidir": False, "tie_weights": architecture.tie_weights, "out_bias": True,
        **_dropout(settings),
    }
    return get_language_model(AwdLstm, architecture.rows, config, drop_mult=settings.drop_mult if settings else 0.0)


def build_classifier(
    architecture: Architecture, head: HeadShape, settings: TrainClassifierSettings | None = None
) -> SequentialRNN:
    """Encoder over whole documents, concat pooling (ULMFiT sec. 3.3) and a head: ids [B, T] -> (logits [B, C], ...).

    Rows must be sorted by length, longest first, and padded as `training.loaders.pad_documents` does.
    Without `settings` there is no dropout: for use, not for training.
    """
    config = {
        "emb_sz": architecture.emb_sz, "n_hid": architecture.n_hid, "n_layers": architecture.n_layers,
        "pad_token": PAD_ID, "bidir": False, **_dropout(settings),
    }
    return get_text_classifier(
        AwdLstm, architecture.rows, head.n_classes, seq_len=head.seq_len, config=config,
        drop_mult=settings.drop_mult if settings else 0.0, lin_ftrs=list(head.lin_ftrs),
        ps=[settings.head_p if settings else 0.0] * len(head.lin_ftrs), pad_idx=PAD_ID, max_len=head.max_len,
    )


def _dropout(settings: FinetuneLMSettings | TrainClassifierSettings | None) -> dict[str, float]:
    names = ("output_p", "hidden_p", "input_p", "embed_p", "weight_p")
    return {name: getattr(settings, name) if settings else 0.0 for name in names}
