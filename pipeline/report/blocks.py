"""What a report is made of, whatever it is written in: HTML and Markdown are two ways to write the same blocks.

Text is plain text here; the writers escape it, so that nothing in a corpus, a label or a name can act on a page.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import ClassVar

from markupsafe import Markup

from pipeline.report.figures import Figure

STRENGTHS = 4
"""Shades of a marked word, for and against."""

Line = Sequence[str | Figure]
"""A run of text and figures."""


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    line: Line
    kind: ClassVar[str] = "prose"


@dataclass(frozen=True)
class Note:
    """A paragraph that must not be overlooked."""

    line: Line
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Hero:
    """The figure that the report is about."""

    label: str
    figure: Figure
    line: Line
    kind: ClassVar[str] = "hero"


@dataclass(frozen=True)
class Card:
    """A figure with a name."""

    label: str
    line: Line


@dataclass(frozen=True)
class Cards:
    """Figures side by side."""

    cards: Sequence[Card]
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column holds names."""

    header: Sequence[str]
    rows: Sequence[Sequence[Line]]
    shades: Sequence[Sequence[int]] = ()
    """Of the cells beside the names, 0 to 9; empty: none."""
    numbers: bool = True
    """Cells beside the names are flush right."""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Chart:
    """A drawing; its figures are in a table too."""

    svg: Markup
    alt: str
    caption: str
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Details:
    """Blocks that are shown on request."""

    summary: str
    blocks: Sequence["Block"]
    kind: ClassVar[str] = "details"


@dataclass(frozen=True)
class MarkedWord:
    """A word and how strongly it speaks for the prediction: -4 (against) to 4 (for)."""

    text: str
    strength: int
    glued: bool
    """No space before it."""


def mark(words: Iterable[tuple[str, float, bool]]) -> list[MarkedWord]:
    """Words given as (text, contribution, glued), the strongest one 4 or -4; NaN is no contribution."""
    given = [(text, 0.0 if isnan(value) else value, glued) for text, value, glued in words]
    largest = max((abs(value) for _, value, _ in given), default=0.0) or 1.0
    return [MarkedWord(text, round(STRENGTHS * value / largest), glued) for text, value, glued in given]


@dataclass(frozen=True)
class Mistake:
    """A wrongly classified document, its words marked."""

    title: Line
    words: Sequence[MarkedWord]
    cut_before: bool
    cut_after: bool
    strongest: Sequence[tuple[str, Figure]]


@dataclass(frozen=True)
class Mistakes:
    """A numbered list of them."""

    mistakes: Sequence[Mistake]
    kind: ClassVar[str] = "mistakes"


Block = Prose | Note | Hero | Cards | Table | Chart | Details | Mistakes


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    name: str
    """For links within the page."""
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    chips: Sequence[Line]
    """Short facts beside the title."""
    top: Sequence[Block]
    sections: Sequence[Section]
    footer: Line
