"""The command `tokens`: one document under several tokenizers, side by side, with how far each goes with a token.

Few pieces mean many short tokens and a vocabulary that is learned fast; many mean the contrary, up to whole words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifact import Artifact
from pipeline.corpus.store import read_columns
from pipeline.errors import DataError
from pipeline.picture import write_picture
from pipeline.progress import Reporter
from pipeline.settings import TokenizeCorpusSettings
from pipeline.text.char import CharTokenizer
from pipeline.text.rules import BOS
from pipeline.text.subword import train_subword
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.word import WordTokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

@dataclass(frozen=True)
class View:
    """A document as one tokenizer sees it."""

    name: str
    tokens: list[str]
    """Without xxbos, which stands for no character."""
    characters_per_token: float

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "tokenizer": self.name, "n_tokens": len(self.tokens), "characters_per_token": self.characters_per_token,
            "tokens": self.tokens,
        }


def views(
    text: str, corpus: Artifact, settings: TokenizeCorpusSettings, pieces: Sequence[int], reporter: Reporter, *,
    n_documents: int,
) -> list[View]:
    """`text` in words, in pieces of each number, and in characters, by the rules of `settings`.

    Pieces are trained on the first `n_documents` training documents of `corpus`; a number that they cannot give is
    told and left out. Raises DataError for a text without tokens.
    """
    tokenizers = _tokenizers(corpus, settings, pieces, n_documents, reporter)
    found = [_view(name, tokenizer, text) for name, tokenizer in tokenizers]
    if not found[0].tokens:
        raise DataError("The text has no tokens.", "Give a text of some words with --show.")
    return found


def _tokenizers(
    corpus: Artifact, settings: TokenizeCorpusSettings, pieces: Sequence[int], n_documents: int, reporter: Reporter
) -> Iterator[tuple[str, Tokenizer]]:
    yield "word", WordTokenizer(settings.language, settings.rules, settings.normalize)
    texts = read_columns(corpus, ["text"], ["train"])["text"].slice(0, n_documents).to_pylist()
    for number in sorted(set(pieces), reverse=True):
        try:
            tokenizer, _ = train_subword(
                texts, settings.rules, settings.model_type, number, settings.character_coverage,
                normalize=settings.normalize,
            )
        except DataError as error:
            reporter.line(f"tokens: no {number:,} pieces: {error.what}")
            continue
        yield f"subword, {number:,} pieces", tokenizer
    yield "char", CharTokenizer(settings.rules, settings.normalize)


def first_document(corpus: Artifact) -> str:
    """The text of the first training document."""
    text: str = read_columns(corpus, ["text"], ["train"])["text"][0].as_py()
    return text


def _view(name: str, tokenizer: Tokenizer, text: str) -> View:
    tokens = [token for token in tokenizer.tokenize(text) if token != BOS]
    return View(name, tokens, round(len(text) / max(len(tokens), 1), 2))


def table(found: Sequence[View], shown: int) -> str:
    """Counts of every view and its first `shown` tokens."""
    width = max(len(view.name) for view in found)
    lines = [f"{'':<{width}}  {'tokens':>7}  characters per token"]
    lines += [f"{view.name:<{width}}  {len(view.tokens):>7,}  {view.characters_per_token:>20.2f}" for view in found]
    for view in found:
        more = " ..." if len(view.tokens) > shown else ""
        lines += ["", f"{view.name}:", f"  {' '.join(view.tokens[:shown])}{more}"]
    return "\n".join(lines)


def plot(found: Sequence[View], path: Path) -> None:
    """Tokens of the document and characters per token, as bars in a PNG or SVG file."""

    def draw(figure: "Figure") -> None:
        names = [view.name for view in found]
        panels = figure.subplots(1, 2, sharey=True)
        for axes, values, label in zip(
            panels,
            ([len(view.tokens) for view in found], [view.characters_per_token for view in found]),
            ("tokens", "characters per token"), strict=True,
        ):
            bars = axes.barh(names, values, color="tab:blue", height=0.6)
            axes.bar_label(bars, padding=3)
            axes.set_xlabel(label)
            axes.margins(x=0.2)
        panels[0].invert_yaxis()  # of both: they share it

    write_picture(path, (8, 0.8 + 0.45 * len(found)), draw)
