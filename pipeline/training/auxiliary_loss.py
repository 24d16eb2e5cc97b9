"""An auxiliary language-model loss for the classifier: what it reads it also has to be able to go on with.

It is meant to keep fine-tuning from forgetting the language (Chronopoulou et al. 2019, arXiv:1902.10547).
B documents, T tokens, D embedding size, V rows of the decoder, N positions that count.
"""

import torch
from fastai.callback.rnn import RNNRegularizer
from fastai.learner import Callback
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.model.architecture import PAD_ID, Architecture
from pipeline.model.decoder_loss import cross_entropy
from pipeline.model.weights import classifier_encoder, load_tensors


class LanguageModelLoss(Callback):
    """Adds `weight` times the mean cross entropy of the next token to the loss of a classifier in training.

    The decoder [V, D] stands still; None is the embedding, which is then the decoder too. Only the chunks that are
    pooled count; where the encoder is frozen there is nothing to learn, and the loss is not computed.
    """

    order = RNNRegularizer.order + 1
    run_valid = False

    def __init__(self, weight: float, bias_V: Tensor, decoder_VD: Tensor | None = None) -> None:
        self.weight, self.bias_V, self.decoder_VD = weight, bias_V, decoder_VD

    def after_loss(self) -> None:
        """Add it to what is differentiated; the loss in logs stays that of the classes."""
        outputs_BTD = self.rnn.raw_out
        if not outputs_BTD.requires_grad:
            return
        decoder_VD = classifier_encoder(self.model).encoder.weight if self.decoder_VD is None else self.decoder_VD
        found = next_token_loss(outputs_BTD, self.xb[0], decoder_VD, self.bias_V)
        self.learn.loss_grad = self.loss_grad + self.weight * found


def load_loss(weight: float, lm: Artifact, architecture: Architecture, device: torch.device) -> LanguageModelLoss:
    """The loss with the decoder of a sealed language model.

    Raises InputError if its decoder.safetensors is missing or does not fit the architecture.
    """
    tensors = {"bias": torch.empty(architecture.rows)}
    if not architecture.tie_weights:
        tensors["weight"] = torch.empty(architecture.rows, architecture.emb_sz)
    load_tensors(tensors, lm.file("decoder.safetensors"))
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    return LanguageModelLoss(weight, tensors["bias"], tensors.get("weight"))


def next_token_loss(outputs_BTD: Tensor, ids_BS: Tensor, decoder_VD: Tensor, bias_V: Tensor) -> Tensor:
    """Mean cross entropy in nats of the token after each position, over positions where neither is padding.

    `outputs_BTD` belong to the last T of the S tokens in a row of `ids_BS`.
    """
    ids_BT = ids_BS[:, ids_BS.shape[1] - outputs_BTD.shape[1] :]
    counts_BT = (ids_BT[:, :-1] != PAD_ID) & (ids_BT[:, 1:] != PAD_ID)
    return cross_entropy(outputs_BTD[:, :-1][counts_BT], decoder_VD, bias_V, ids_BT[:, 1:][counts_BT])
