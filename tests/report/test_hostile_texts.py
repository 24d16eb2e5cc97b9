"""T13: reviews, labels and ids made to act on whoever reads the evaluation."""

import copy
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.report import metrics as scores
from pipeline.report.evaluation_page import escape, excerpt, render

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!-- comment", "<b>", "</td></table><h1>owned</h1>",
    "[click](javascript:alert(1))", "![pixel](http://evil.example/p.png)", "[ref]: http://evil.example",
    "<http://evil.example>", "[^1]: note", "a | b | c", "|---|---|", "`code` ``two``", "```\nfence\n```", "~~~",
    "line\nbreak\r\n\r\n# heading", "# heading", "- item", "+ item", "* item", "1. item", "2) item", "> quote", "---",
    "===", "    indented", "\tindented", "\\", "\\\\`", "\\[x](y)", "&lt;script&gt;", "&#60;b&#62;", "$x$ $$y$$",
    "**bold** __bold__ _it_", "\x1b[2J\x1b]0;owned\x07", "\x9b2J", "\u202eevil", "\u2028\u2029", "\x00\x08\x7f",
    "\ud800", "\U0001f468\u200d\U0001f469", "https://evil.example", "HTTP://EVIL.example", "www.evil.example",
    "ftp://evil.example", "xxbos", "{{7*7}}", "{% raw %}", "${jndi:ldap://x}", "=cmd|'/c calc'!A0",
]
TEXTS = st.sampled_from(HOSTILE) | st.lists(st.sampled_from(HOSTILE) | st.text(max_size=6), max_size=5).map("".join)
SCORING = {"bootstrap_samples": 20, "calibration_bins": 3, "seed": 4}
ALLOWED = {
    "heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "table_open", "table_close",
    "thead_open", "thead_close", "tbody_open", "tbody_close", "tr_open", "tr_close", "th_open", "th_close", "td_open",
    "td_close", "ordered_list_open", "ordered_list_close", "bullet_list_open", "bullet_list_close", "list_item_open",
    "list_item_close", "text", "strong_open", "strong_close", "code_inline",
}
"""What the page itself is made of; nothing here runs, loads or leads anywhere."""
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


def all_tokens(page: str) -> list[Token]:
    found: list[Token] = []
    for token in MARKDOWN.parse(page):
        found += [token, *(token.children or [])]
    return found


def shown(text: str) -> str:
    """What a reader is to see of `text`: the same characters, those that cannot be printed as spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def base() -> dict[str, Any]:
    label_ids = np.array([0, 1] * 60)
    random = np.random.default_rng(1)
    weights = np.exp(random.normal(size=(120, 2)) + np.eye(2)[label_ids])
    return {
        **scores.score(label_ids, weights / weights.sum(axis=1, keepdims=True), ["a", "b"], **SCORING),
        "labels": ["a", "b"], "test_documents": 120, "majority_label": "a", "majority_accuracy": 0.5,
        "bootstrap_samples": 20, "seed": 4, "device": "cpu", "precision": {"requested": "auto", "effective": "fp32"},
        "lineage": {"ids": "f" * 64}, "mistakes": [],
        "protocol": {
            "transductive": False, "language_model_known": True, "classifier_trained_on_this_split": True,
            "documents": {"train": 9}, "test_documents_without_label": 0, "duplicates": {},
        },
    }


BASE = base()
PLAIN = [token.type for token in all_tokens(render(BASE))]


def page_of(labels: list[str], mistakes: list[tuple[str, str]]) -> str:
    """The page with these two labels and these mistakes: id and text."""
    metrics = copy.deepcopy(BASE) | {"labels": labels, "majority_label": labels[0]}
    for row, label in zip(metrics["per_class"], labels, strict=True):
        row["label"] = label
    metrics["mistakes"] = [
        {"doc_id": doc_id, "label": labels[0], "predicted": labels[1], "probability": 0.5, "excerpt": excerpt(text)}
        for doc_id, text in mistakes
    ]
    return render(metrics)


def check_is_inert(page: str, n_mistakes: int) -> list[Token]:
    tokens = all_tokens(page)
    assert {token.type for token in tokens} <= ALLOWED
    kinds = [token.type for token in tokens]
    for kind in ("table_open", "tr_open", "td_open", "th_open", "heading_open", "bullet_list_open"):
        assert kinds.count(kind) == PLAIN.count(kind), kind
    assert kinds.count("list_item_open") == PLAIN.count("list_item_open") + n_mistakes
    assert kinds.count("code_inline") == PLAIN.count("code_inline")
    assert all(c == "\n" or c.isprintable() for c in page)
    assert not re.search(r"(?i)[a-z]://|www\.", page), "GitHub makes such text a link by itself"
    return tokens


def items(tokens: list[Token]) -> list[str]:
    """Text of the items of the numbered list."""
    found, inside = [], False
    for token in tokens:
        inside = (inside or token.type == "ordered_list_open") and token.type != "ordered_list_close"
        if inside and token.type == "inline":
            found.append("".join(child.content for child in token.children or []))
    return found


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_is_shown_and_does_nothing(text: str) -> None:
    page = page_of([f"{text} one", f"two {text}"], [(f"{text}id", text), (f"id{text}", f"{text} {text}")])
    tokens = check_is_inert(page, 2)
    first, second = items(tokens)
    assert " ".join(first.split()).endswith(f'with probability 0.5000: "{shown(text)}"')
    assert " ".join(second.split()).startswith(shown(f"id{text}") + ": is ")


@given(TEXTS, TEXTS, TEXTS)
@example("1.", "-", "+")
@example("a\\", "b\\", "c\\")
@settings(max_examples=100)
def test_any_text_is_inert(label: str, doc_id: str, text: str) -> None:
    tokens = check_is_inert(page_of([f"1{label}", f"2{label}"], [(doc_id + "x", text)]), 1)
    assert " ".join(items(tokens)[0].split()).endswith(f'"{shown(excerpt(text))}"')


@given(TEXTS)
@settings(max_examples=150)
def test_escaped_text_reads_as_it_was_written(text: str) -> None:
    tokens = all_tokens(f"before {escape(text)} after")
    assert [token.type for token in tokens[:3]] == ["paragraph_open", "inline", "text"]
    assert {token.type for token in tokens} == {"paragraph_open", "inline", "text", "paragraph_close"}
    assert " ".join(tokens[1].children[0].content.split()) == shown(f"before {text} after")  # type: ignore[index]


def test_the_check_sees_what_it_bans() -> None:
    good = page_of(["a", "b"], [("id", "text")])
    check_is_inert(good, 1)
    for bad in ("<b>x</b>", "[x](y)", "![x](y)", "<script>x</script>", "\x1b[2J", "http://y", "\n\n# more", "`x`"):
        with pytest.raises(AssertionError):
            check_is_inert(good.replace('"text"', bad), 1)
