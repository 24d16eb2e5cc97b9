"""The cleaning policy, in one place. Every change is counted and reported.

- A document that is empty, or blank (only white space), is dropped.
- A byte order mark at the start is removed.
- Invalid UTF-8 becomes U+FFFD, and so do NUL characters and lone surrogates.
- CRLF and CR become LF.
- A document of more than 1,000,000 characters is kept whole.
- Nothing is read as a missing value: "nan", "NULL" and "None" are text.
- A label that is empty or blank means that the document is unlabelled text.
"""

import codecs
import re
from collections import Counter

LONG_DOCUMENT_CHARS = 1_000_000
COUNTED = ("empty", "blank", "bom", "invalid_utf8", "nul", "surrogates", "line_ends", "over_1m_characters")
"""What is counted, in documents. The first two are dropped, the last one is kept as it is, the others are mended."""
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_text(raw: bytes | str, counts: Counter[str]) -> str | None:
    """`raw` as clean text, or None if it is to be dropped; what was done is added to `counts`."""
    text = _decode(raw, counts)
    if text.startswith("\ufeff"):
        counts["bom"] += 1
        text = text[1:]
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
    if len(text) > LONG_DOCUMENT_CHARS:
        counts["over_1m_characters"] += 1
    return text


def clean_name(value: str) -> str:
    """A label, group or document id without what cannot be stored, and without white space around it."""
    return _SURROGATES.sub("\ufffd", value).replace("\0", "\ufffd").strip()


def _decode(raw: bytes | str, counts: Counter[str]) -> str:
    if isinstance(raw, bytes):
        if raw.startswith(codecs.BOM_UTF8):
            counts["bom"] += 1
            raw = raw.removeprefix(codecs.BOM_UTF8)
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
