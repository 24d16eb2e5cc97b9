"""Models: fastai's AWD_LSTM as language model and classifier, and their weights on disk."""

import warnings

# While fastai is imported it calls torch.jit.script and a pandas option that both warn of their end.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import fastai.text.learner  # noqa: F401
