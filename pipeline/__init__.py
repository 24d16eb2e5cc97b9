"""Staged language-model fine-tuning: raw text in, a fine-tuned AWD_LSTM and a text classifier out."""

import warnings

__version__ = "0.1.0"

# fastai calls torch.jit.script while it is imported, and torch warns of its end; a user's log can do without.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
