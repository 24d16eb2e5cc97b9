"""The cleaning policy, in one place. Every change is counted and reported.

- A document that is empty, or blank (only white space), is dropped.
- Byte order marks at the start are removed.
- Invalid UTF-8 becomes U+FFFD, and so do NUL characters and lone surrogates.
- CRLF and CR become LF.
- Other control characters (escape, form feed, C1, ...), text that spells a special token (xxbos, xxunk, ...), markup,
  right-to-left and combining characters and joined emoji are text and stay as they are. Documents with one of the
  first two are counted: terminals act on control characters, and fastai takes xxbos for its own.
- A run of more than 1,000 characters without white space is kept and counted; the word and subword tokenizers cut it,
  and so does the character tokenizer with fastai's rules.
- A document of more than 1,000,000 characters is kept whole; one of more than MAX_DOCUMENT_BYTES is refused.
- Nothing is read as a missing value: "nan", "NULL" and "None" are text.
- A label that is empty or blank means that the document is unlabelled text.
- In a label, group or id, control characters and marks that turn the reading direction become U+FFFD: they are shown
  to people, on terminals too.
"""

import re
from collections import Counter

LONG_DOCUMENT_CHARS = 1_000_000
LONG_RUN_CHARS = 1_000
COUNTED = (
    "empty", "blank", "bom", "invalid_utf8", "nul", "surrogates", "line_ends", "control_characters", "special_tokens",
    "long_runs", "over_1m_characters",
)
"""What is counted, in documents. The first two are dropped, the last four are kept as they are, the others mended."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SPECIAL_TOKEN = re.compile(r"\bxx(?:unk|pad|bos|eos|fld|rep|wrep|up|maj)\b")
_UNFIT_FOR_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean_text(raw: bytes | str, counts: Counter[str]) -> str | None:
    """`raw` as clean text, or None if it is to be dropped; what was done is added to `counts`."""
    text = _decode(raw, counts)
    if text.startswith("\ufeff"):
        counts["bom"] += 1
        text = text.lstrip("\ufeff")
    if not text:
        counts["empty"] += 1
        return None
    if text.isspace():
        counts["blank"] += 1
        return None
    if "\0" in text:
        counts["nul"] += 1
        text = text.replace("\0", "\ufffd")
    if "\r" in text:
        counts["line_ends"] += 1
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _CONTROL.search(text):
        counts["control_characters"] += 1
    if "xx" in text and _SPECIAL_TOKEN.search(text):
        counts["special_tokens"] += 1
    if has_long_run(text):
        counts["long_runs"] += 1
    if len(text) > LONG_DOCUMENT_CHARS:
        counts["over_1m_characters"] += 1
    return text


def clean_name(value: str) -> str:
    """A label, group or document id without white space around it and without what cannot be stored or shown."""
    value = value.strip()
    return value if value.isascii() and value.isprintable() else _UNFIT_FOR_NAMES.sub("\ufffd", value)


def _decode(raw: bytes | str, counts: Counter[str]) -> str:
    if isinstance(raw, bytes):
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            counts["invalid_utf8"] += 1
            return raw.decode("utf-8", errors="replace")
    try:
        raw.encode("utf-8")
    except UnicodeEncodeError:
        counts["surrogates"] += 1
        return _SURROGATES.sub("\ufffd", raw)
    return raw


def has_long_run(text: str) -> bool:
    """True if more than LONG_RUN_CHARS characters follow each other without white space."""
    at = 0
    while len(text) - at > LONG_RUN_CHARS:
        at = text.rfind(" ", at, at + LONG_RUN_CHARS + 1) + 1
        if not at:  # no space there, but maybe other white space
            return max(map(len, text.split()), default=0) > LONG_RUN_CHARS
    return False
