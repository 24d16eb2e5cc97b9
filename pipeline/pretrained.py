"""The models that come with this package, each used by its name wherever the folder of a model is asked for.

A checkout has them in models/pretrained, an installed package among its modules.
"""

from pathlib import Path

DEFAULT_MODEL = "reviews-small"
"""What is used where no model is named: the one that ships, or a run of the user's that is called so."""

MODEL_SLOTS = ("lm", "classifier")
_PACKAGE = Path(__file__).resolve().parent
_HOMES = (_PACKAGE / "pretrained_models", _PACKAGE.parent / "models" / "pretrained")


def shipped_models() -> dict[str, Path]:
    """Folder of each model by its name; it holds sealed artifacts such as lm-fwd and classifier-fwd."""
    home = next((home for home in _HOMES if home.is_dir()), None)
    return {} if home is None else {path.name: path for path in sorted(home.iterdir()) if path.is_dir()}


def shipped(name: str, slot: str, direction: str | None = None) -> Path | None:
    """Folder of the artifact `slot` (lm or classifier) of the model called `name`; None if no model is called so.

    Without a direction it is of the one that the model has, forwards first. The folder may be absent.
    """
    model = shipped_models().get(name)
    if model is None:
        return None
    folders = [model / f"{slot}-{d}" for d in ((direction,) if direction else ("fwd", "bwd"))]
    return next((folder for folder in folders if folder.exists()), folders[0])
