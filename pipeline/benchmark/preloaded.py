"""What children that are forked share: fastai, imported once, under the warning filter of the package."""

import fastai.text.all  # noqa: F401
