"""Explained texts for people: marked words on a terminal, in plain lines, or on one self-contained page.

The marks never speak by colour alone: what speaks for the class is underlined on a terminal and on the page (solid;
dotted is against), and in plain lines it is {+so+}, what speaks against it [-so-].
"""

from collections.abc import Sequence

from rich.text import Text

from pipeline import __version__
from pipeline.inference.explanation import METHODS, Explanation
from pipeline.progress import printable
from pipeline.report.blocks import STRENGTHS, MarkedWord, mark
from pipeline.report.page import environment

FOR, AGAINST = ("#ffd8a8", "#f4a259", "#d9730d", "#a8471a"), ("#c6dbf7", "#8db8ee", "#4a86d8", "#1c4f9c")
"""Backgrounds of a terminal, weak to strong: orange and blue stay apart in every kind of colour blindness."""
PLAIN_FROM = 2
"""The weakest strength that is marked in plain lines."""


def marked_words(explanation: Explanation) -> list[MarkedWord]:
    """The words of an explanation with their strengths."""
    return mark((word.text, word.value, word.glued) for word in explanation.words)


def as_text(explanation: Explanation, *, colours: bool) -> Text:
    """An explanation for a terminal (`colours`) or for a pipe."""
    result = Text(printable(f"{explanation.label} {explanation.probabilities[explanation.label]:.4f}"), style="bold")
    result.append(printable(f"  (marked: for and against {explanation.explained})\n"), style="not bold")
    for number, word in enumerate(marked_words(explanation)):
        shown, strength = printable(word.text), word.strength
        result.append(" " if number and not word.glued else "", style="not bold")
        if colours:
            result.append(shown, style=_style(strength))
        elif abs(strength) >= PLAIN_FROM:
            result.append(f"{{+{shown}+}}" if strength > 0 else f"[-{shown}-]")
        else:
            result.append(shown)
    strongest = ", ".join(f"{printable(word.text)} {word.value:+.2f}" for word in explanation.strongest())
    result.append(f"\nstrongest: {strongest or 'none'}\nmethod: {METHODS[explanation.method]}\n", style="not bold")
    return result


def _style(strength: int) -> str:
    if not strength:
        return "not bold"
    shade = abs(strength) - 1
    ink = "white" if shade >= STRENGTHS // 2 else "black"
    return f"not bold {'underline ' if strength > 0 else ''}{ink} on {(FOR if strength > 0 else AGAINST)[shade]}"


def as_page(explanations: Sequence[Explanation], model: str) -> str:
    """A page of explanations that needs nothing else and runs nothing; every text is escaped."""
    shown = [
        {
            "explanation": explanation,
            "words": marked_words(explanation),
            "strongest": [(word.text, f"{word.value:+.2f}") for word in explanation.strongest()],
            "probability": f"{explanation.probabilities[explanation.label]:.4f}",
            "method": METHODS[explanation.method],
        }
        for explanation in explanations
    ]
    template = environment("html").get_template("explanation.html")
    return template.render(shown=shown, model=model, version=__version__) + "\n"
