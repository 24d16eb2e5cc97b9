"""What training costs, in floating-point operations of its matrix products: 2 forward and 4 backward per weight."""

import numpy as np

from pipeline.benchmark.data import Lengths
from pipeline.model.architecture import Architecture


def lstm_weights(architecture: Architecture) -> int:
    """Weights of the matrix products of all LSTM layers."""
    return sum(4 * n_out * (n_in + n_out) for n_in, n_out in architecture.layer_sizes)


def of_language_model_token(architecture: Architecture) -> int:
    """FLOP of one training token: all LSTM layers, and the decoder over the whole vocabulary."""
    return 6 * (lstm_weights(architecture) + architecture.emb_sz * architecture.vocabulary_size)


def of_documents(architecture: Architecture, lengths: Lengths, max_len: int) -> float:
    """FLOP of training a classifier once on documents: all tokens forward, the last `max_len` of each also backward.

    Padding does not count: reading it is no work.
    """
    return lstm_weights(architecture) * float((2 * lengths + 4 * np.minimum(lengths, max_len)).sum())
