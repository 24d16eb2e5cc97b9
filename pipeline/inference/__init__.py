"""Using what was trained: sealed models as plain torch modules, without fastai."""
