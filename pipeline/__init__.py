"""Staged language-model fine-tuning: raw text in, a fine-tuned AWD_LSTM and a text classifier out."""

__version__ = "0.1.0"
