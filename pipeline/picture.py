"""Pictures that commands write: checked before the work begins, complete or absent, the same for the same data."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.storage import check_place_of_file, write_durably

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
_STYLE = {
    "svg.hashsalt": "picture", "svg.fonttype": "none", "text.parse_math": False, "axes.spines.top": False,
    "axes.spines.right": False,
}


def check_picture(path: Path, option: str, *, make_folder: bool = False) -> None:
    """UsageError if `path`, given with `option`, is no PNG or SVG file in a folder that is there or can be made."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path} is neither .png nor .svg.", f"Name the picture {option} FILE.png or FILE.svg.")
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    check_place_of_file(path, option)


def write_picture(path: Path, size: tuple[float, float], draw: Callable[["Figure"], None]) -> None:
    """Write what `draw` puts on a figure of `size` inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # it takes a Literal of every name
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        suffix = path.suffix.lower()[1:]
        figure.savefig(stream, format=suffix, dpi=120, metadata={"Date": None} if suffix == "svg" else None)
    write_durably(path, stream.getvalue())
