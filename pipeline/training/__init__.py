"""Training: loaders, precision, phases, progress and checkpoints around fastai's Learner."""

import pipeline.model  # noqa: F401  # imports fastai quietly
