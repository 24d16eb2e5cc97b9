"""The character tokenizer: every character a token, special tokens kept whole."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.text.encoding import EncodedBatch, encode_lists
from pipeline.text.rules import BOS, SPACE, SPECIAL_TOKENS, apply_rules, normalized, prepare, resolve

_UNITS = re.compile(rf"(?<!\S)(?:{'|'.join(SPECIAL_TOKENS)})(?: |(?!\S))|.", re.DOTALL)


class CharTokenizer:
    """Characters of the text after the rules, xxbos first; a space is `▁`, but the one after a special token is left
    out, because the token implies it."""

    kind = "char"
    splitter = None

    def __init__(self, rules: str = "fastai", normalize: str = "none") -> None:
        self.rules, self.normalize = rules, normalize

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one text, xxbos first."""
        if self.rules == "none":
            return [BOS, *normalized(text, self.normalize).replace(" ", SPACE)]
        units: list[str] = _UNITS.findall(apply_rules(prepare(text, self.normalize)))
        return [BOS, *(SPACE if unit == " " else unit.removesuffix(" ") for unit in units)]

    def encode(self, texts: Sequence[str]) -> EncodedBatch:
        """Types and ids of many texts; the same tokens as `tokenize` gives."""
        return encode_lists([self.tokenize(text) for text in texts])

    def join(self, pieces: EncodedBatch) -> EncodedBatch:
        """`pieces` as they are: `encode` leaves nothing to do."""
        return pieces

    def detokenize(self, tokens: Sequence[str]) -> str:
        """Readable text; special tokens carried out."""
        text = "".join(f"{t} " if t in SPECIAL_TOKENS else t.replace(SPACE, " ") for t in tokens)
        return "\n".join(" ".join(resolve(line.split(" "))) for line in text.split("\n")).strip(" ")

    def describe(self) -> dict[str, Any]:
        """What tokenizer.json says beside kind and rules."""
        return {}

    def save_model(self, folder: Path) -> None:
        """Nothing beside the description."""
