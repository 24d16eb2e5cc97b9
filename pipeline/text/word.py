"""The word tokenizer: fastai's rules, then a blank spaCy tokenizer, then fastai's replace_space."""

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.text.encoding import EncodedBatch, encode_lists
from pipeline.text.rules import BOS, SPACE, SPECIAL_TOKENS, apply_rules, join_words, prepare_words, resolve

if TYPE_CHECKING:
    from pipeline.text.pieces import PieceSplitter


_MARK = re.compile(rf"(?<!\S)({'|'.join(SPECIAL_TOKENS)})(?!\S)")
MAX_STRINGS = 100_000
"""Words that spaCy may have seen, about 50 MB of them, before a tokenizer is made anew."""


class WordTokenizer:
    """Tokens identical to fastai's `TokenizeWithRules(SpacyTokenizer(lang))` (rules `fastai`), or spaCy's own tokens of
    the raw text after one xxbos (rules `none`)."""

    kind = "word"

    def __init__(self, language: str = "en", rules: str = "fastai", normalize: str = "none") -> None:
        self.language, self.rules, self.normalize = language, rules, normalize

    @cached_property
    def nlp(self) -> Any:
        """The blank spaCy pipeline, made on first use: importing spaCy takes a second."""
        return blank_spacy(self.language)

    def load(self) -> "WordTokenizer":
        """This tokenizer, with spaCy imported; UsageError if that has none for the language."""
        assert self.nlp is not None
        return self

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one text, xxbos first."""
        return self.tokens_of(self.prepare(text))

    def prepare(self, text: str) -> str:
        """`text` as the remaining rules see it: normalized, entities undone, ends stripped, overlong chunks cut."""
        return prepare_words(text, self.rules, self.normalize)

    def tokens_of(self, prepared: str) -> list[str]:
        """Tokens of a text that went through `prepare`."""
        if self.rules == "fastai":
            prepared = apply_rules(prepared)
        if len(self.nlp.vocab.strings) > MAX_STRINGS:
            self.__dict__.pop("nlp", None)  # it is made anew: spaCy keeps every word that it has ever seen
        return [BOS, *(word.replace(" ", SPACE) for word in self._words(prepared))]

    def _words(self, prepared: str) -> Iterator[str]:
        """spaCy's tokens, in which fastai's marks are whole."""
        cut = self.nlp.tokenizer
        if hasattr(cut, "add_special_case"):
            yield from (token.text for token in cut(prepared))
            return
        # Tokenizers that know no special cases, as that of Chinese, would spell the marks out: they see none.
        for i, part in enumerate(_MARK.split(prepared)):
            if i % 2:
                yield part
            else:
                yield from (token.text for token in cut(part.strip(" ")))

    def encode(self, texts: Sequence[str]) -> EncodedBatch:
        """Types and ids of many texts; the same tokens as `tokenize` gives, several times as fast."""
        splitter = self.splitter
        if splitter is None:
            return encode_lists([self.tokenize(text) for text in texts])
        return self.join(splitter.encode(texts))

    @property
    def splitter(self) -> "PieceSplitter | None":
        """Cuts texts into the pieces that `join` takes, if the language's tokenizer works word by word."""
        from pipeline.text.pieces import PieceSplitter  # and with it pyarrow, which a single text does not need

        return None if self._batch is None else PieceSplitter(self.rules, self.normalize)

    def join(self, pieces: EncodedBatch) -> EncodedBatch:
        """Types and ids of the texts that `splitter` cut into `pieces`; without one, of the tokens that they are."""
        encoded: EncodedBatch = pieces if self._batch is None else self._batch.encode(pieces)
        return encoded

    @cached_property
    def _batch(self) -> Any:
        from pipeline.text.word_batch import BatchEncoder

        return BatchEncoder(self) if BatchEncoder.fits(self) else None

    def detokenize(self, tokens: Sequence[str]) -> str:
        """Readable text; special tokens carried out, spaces before punctuation removed."""
        return join_words([word.replace(SPACE, " ") for word in resolve(tokens)])

    def describe(self) -> dict[str, Any]:
        """The settings that give this tokenizer again, and the spaCy version whose rules it has."""
        from importlib.metadata import version

        return {"language": self.language, "spacy": version("spacy")}

    def save_model(self, folder: Path) -> None:
        """Nothing beside the description."""


def blank_spacy(language: str) -> Any:
    """A blank spaCy pipeline of `language` with fastai's special tokens as special cases."""
    # thinc, below spaCy, imports torch where it can. A blank tokenizer needs none of it, and it takes seconds.
    hide_torch = "torch" not in sys.modules
    if hide_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import spacy
        from spacy.symbols import ORTH
    finally:
        if hide_torch:
            del sys.modules["torch"]
    try:
        nlp = spacy.blank(language)
    except ImportError as error:
        raise UsageError(
            f"spaCy has no tokenizer for tokenize_corpus.language {language!r}: {str(error).strip()}",
            "Choose another language code, or 'xx' for text in many languages.",
        ) from error
    nlp.vocab.lex_attr_getters = {}  # shapes, prefixes, stop words: half the cost of a new word, and not used
    if hasattr(nlp.tokenizer, "add_special_case"):
        for token in SPECIAL_TOKENS:
            nlp.tokenizer.add_special_case(token, [{ORTH: token}])
    return nlp
