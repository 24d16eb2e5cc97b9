"""Training: loaders, precision, phases, progress and checkpoints around fastai's Learner."""
