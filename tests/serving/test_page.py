"""The page in a browser: every function, by keyboard, in both colour schemes, on a phone, and when things go wrong."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

import chromium
import pytest
from served import Served, running

from pipeline.serving.limits import Limits
from pipeline.serving.models import Models

TEXT = "A warm, witty film. The dull story!"
EVIL = "<img src=x onerror=alert(1)> <script>alert(2)</script> \u202e warm"
RESULTS = "document.querySelectorAll('.result').length"
KEY = "correct-horse-battery"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.program() is None, reason="no Chromium on this machine: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    with chromium.running(tmp_path_factory.mktemp("profile")) as found:
        yield found


def opened(browser: chromium.Browser, server: Served, width: int = 1100, dark: bool = False) -> None:
    browser.open(f"{server.url}/", width, dark=dark)
    browser.wait_for("!document.getElementById('main').hidden")


def text_of(browser: chromium.Browser, selector: str) -> str:
    return str(browser.value(f"document.querySelector({json.dumps(selector)}).innerText"))


def fill(browser: chromium.Browser, field: str, value: str) -> None:
    """Type into a field, as a person would."""
    browser.value(f"document.getElementById('{field}').focus(); document.getElementById('{field}').select()")
    browser.call("Input.insertText", text=value)


def submit(browser: chromium.Browser, form: str) -> None:
    browser.value(f"document.getElementById('{form}-button').click()")
    browser.wait_for(f"!document.getElementById('{form}-status').classList.contains('busy')")


def error_of(browser: chromium.Browser, form: str) -> str:
    assert browser.value(f"document.getElementById('{form}-error').hidden") is False
    return text_of(browser, f"#{form}-error")


def test_a_text_gets_a_class_a_probability_and_marked_words(
    browser: chromium.Browser, server: Served, models: Models
) -> None:
    opened(browser, server)
    browser.value("document.getElementById('second').value = ''")
    fill(browser, "text", TEXT)
    for method in ("gradient", "occlusion"):
        browser.value(f"document.getElementById('method').value = '{method}'")
        submit(browser, "classify")
        answer = server.post("/explain", {"text": TEXT, "method": method}).json()
        assert browser.value(RESULTS) == 1
        assert text_of(browser, ".verdict .label") == answer["label"]
        assert text_of(browser, ".verdict .probability") == f"{100 * answer['probabilities'][answer['label']]:.1f} %"
        assert text_of(browser, ".words") == "a warm, witty film. The dull story!"
        largest = max(answer["words"], key=lambda word: abs(word["value"]))
        strongest = browser.value("JSON.stringify([...document.querySelectorAll('mark.s4')].map(m => m.textContent))")
        assert largest["text"] in json.loads(strongest)
        for side in ("for", "against"):  # solid or dotted: not by colour alone
            style = browser.value(f"getComputedStyle(document.querySelector('.legend .{side}')).borderBottomStyle")
            assert style == {"for": "solid", "against": "dotted"}[side]
        value = text_of(browser, ".result tbody td.value")
        assert re.fullmatch(r"[+\u2212]\d+\.\d\d", value)
        assert answer["label"] in text_of(browser, "#classify-status")
    assert browser.complaints() == []
    assert {url.removeprefix(server.url) for url in browser.requests()} <= {
        "/", "/page.css", "/page.js", "/icon.svg", "/models", "/explain"
    }


def test_two_models_stand_side_by_side(browser: chromium.Browser, server: Served) -> None:
    opened(browser, server)
    fill(browser, "text", TEXT)
    submit(browser, "classify")
    assert browser.value(RESULTS) == 2
    names = browser.value("JSON.stringify([...document.querySelectorAll('.result h3')].map(h => h.textContent))")
    assert json.loads(names) == ["one", "two"]
    tops = browser.value("JSON.stringify([...document.querySelectorAll('.result')].map(r => r.offsetTop))")
    assert len(set(json.loads(tops))) == 1


def test_a_text_is_continued(browser: chromium.Browser, server: Served) -> None:
    opened(browser, server)
    fill(browser, "prompt", "The film")
    fill(browser, "max-tokens", "15")
    submit(browser, "generate")
    body = {"prompt": "The film", "max_tokens": 15, "samples": 2, "seed": 42, "temperature": 0.75}
    expected = [sample["text"] for sample in server.post("/generate", body).json()["samples"]]
    shown = json.loads(browser.value(
        "JSON.stringify([...document.querySelectorAll('#sample-list li')].map(li => li.textContent))"))
    assert [text.removesuffix(" \u2026") for text in shown] == expected
    assert "2 samples by one" in text_of(browser, "#generate-status")
    fill(browser, "samples", "9")
    submit(browser, "generate")
    assert error_of(browser, "generate") == "Samples must be a whole number from 1 to 8."
    assert browser.value("document.activeElement.id") == "samples"
    assert browser.complaints() == []


def test_the_keyboard_is_enough(browser: chromium.Browser, server: Served) -> None:
    opened(browser, server)
    browser.value("document.activeElement.blur()")
    visited = []
    for _ in range(13):
        browser.press("Tab", 9)
        visited.append(browser.value("document.activeElement.id || document.activeElement.className"))
        outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"nobody sees that {visited[-1]} has the focus"
    *fields, last = visited
    assert fields == [
        "skip", "text", "first", "second", "method", "classify-button", "prompt", "temperature", "max-tokens",
        "samples", "seed", "generate-button",
    ]
    assert last == "", "the link in the footer"
    fill(browser, "text", TEXT)
    browser.press("Enter", 13, modifiers=2)
    browser.wait_for(f"{RESULTS} == 2")


def test_everything_has_a_name_and_news_is_announced(browser: chromium.Browser, server: Served) -> None:
    opened(browser, server)
    unnamed = browser.value(
        "[...document.querySelectorAll('input, textarea, select')].filter(f => !f.labels.length).length")
    assert unnamed == 0
    for form in ("classify", "generate"):
        assert browser.value(f"document.getElementById('{form}-status').getAttribute('aria-live')") == "polite"
        assert browser.value(f"document.getElementById('{form}-error').getAttribute('role')") == "alert"
    assert browser.value("document.documentElement.lang") == "en"
    small = browser.value(
        "[...document.querySelectorAll('button, select, textarea, input:not([type=range])')]"
        ".filter(e => e.offsetParent && e.offsetHeight < 44).length")
    assert small == 0, "too small for a finger"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1100])
def test_it_fits_and_can_be_read(browser: chromium.Browser, server: Served, width: int, dark: bool) -> None:
    opened(browser, server, width, dark)
    fill(browser, "text", f"{TEXT} {'long' * 60}")
    submit(browser, "classify")
    submit(browser, "generate")
    assert browser.value(RESULTS) == 2
    assert browser.value("document.documentElement.scrollWidth") <= width
    for selector in (".lead", ".hint", ".verdict .label", ".words", ".legend", "button.main", ".samples li", "mark.s4"):
        assert contrast(browser, selector) >= 4.5, selector
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 150) is dark


def contrast(browser: chromium.Browser, selector: str) -> float:
    """WCAG 2 contrast of an element's text with what lies behind it."""
    colours = json.loads(browser.value(
        "(selector => { let e = document.querySelector(selector); const ink = getComputedStyle(e).color, behind = [];"
        "for (; e; e = e.parentElement) behind.push(getComputedStyle(e).backgroundColor);"
        f"return JSON.stringify([ink, ...behind]); }})({json.dumps(selector)})"))
    ink, *behind = [[float(part) for part in re.findall(r"[\d.]+", colour)] for colour in colours]
    shown = [255.0] * 3
    for layer in reversed(behind):
        alpha = layer[3] if len(layer) > 3 else 1.0
        shown = [alpha * new + (1 - alpha) * old for new, old in zip(layer, shown, strict=False)]
    light, dark = sorted((luminance(ink[:3]), luminance(shown)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(rgb: list[float]) -> float:
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_hostile_text_is_text(browser: chromium.Browser, server: Served) -> None:
    opened(browser, server)
    fill(browser, "text", EVIL)
    submit(browser, "classify")
    fill(browser, "prompt", EVIL)
    submit(browser, "generate")
    assert browser.value("document.querySelectorAll('img, main script, iframe').length") == 0
    assert "onerror" in text_of(browser, ".words")
    assert "onerror" in text_of(browser, "#sample-list")
    assert not [e for e in browser.events if e["method"] == "Page.javascriptDialogOpening"]
    assert browser.complaints() == []


def test_errors_are_told_and_mended(browser: chromium.Browser, models: Models) -> None:
    with running(models, Limits(body_bytes=2000)) as server:
        opened(browser, server)
        submit(browser, "classify")
        assert error_of(browser, "classify") == "There is no text yet: type or paste some."
        assert browser.value("document.activeElement.id") == "text"
        assert browser.value("document.getElementById('text').getAttribute('aria-invalid')") == "true"
        fill(browser, "text", "a film " * 500)
        submit(browser, "classify")
        assert error_of(browser, "classify") == "The body has over 2,000 bytes, the most a request may have."
        fill(browser, "text", TEXT)
        submit(browser, "classify")
        assert browser.value("document.getElementById('classify-error').hidden") is True
        assert browser.value(RESULTS) == 2
    submit(browser, "classify")
    assert error_of(browser, "classify") == "The server does not answer. Is it still running?"
    assert browser.value("document.getElementById('classify-button').getAttribute('aria-disabled')") is None


def test_a_key_is_asked_for(browser: chromium.Browser, models: Models, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), running(replace(models, language_model=None), key=KEY) as server:
        browser.open(f"{server.url}/", 1100)
        browser.wait_for("!document.getElementById('key-form').hidden")
        assert "needs a key" in text_of(browser, "#served")
        for given, right in (("wrong", False), (KEY, True)):
            fill(browser, "key", given)
            browser.press("Enter", 13, "\r")
            browser.wait_for(f"document.getElementById('main').hidden != {str(right).lower()}")
        assert browser.value("document.getElementById('key-form').hidden") is True
        assert browser.value("document.getElementById('generate-section').hidden") is True
        fill(browser, "text", TEXT)
        submit(browser, "classify")
        assert browser.value(RESULTS) == 2


def test_it_needs_nothing_from_elsewhere() -> None:
    folder = resources.files("pipeline.serving").joinpath("page")
    for name in ("index.html", "page.css", "page.js", "icon.svg"):
        text = folder.joinpath(name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|innerHTML|outerHTML|insertAdjacent|\.write\(|eval\(", text)
    assert {path.name for path in Path(str(folder)).iterdir()} == {"index.html", "page.css", "page.js", "icon.svg"}
