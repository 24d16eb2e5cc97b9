"""Models: fastai's AWD_LSTM as language model and classifier, and their weights on disk."""
