"""The report of a finished run: its figures are those of the JSON, it needs nothing else, and nothing in it acts."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import chromium
import pytest
from command_line import BAD, GOOD, call
from markdown_it import MarkdownIt

from pipeline.progress import format_duration

RUN = "smoke"
PLACES = {
    "corpus": "data", "tokens": "data", "ids": "data", "lm": "models", "classifier": "models", "evaluation": "models",
}
TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "h1", "h2", "p",
    "span", "div", "bdi", "data", "dl", "dt", "dd", "ul", "ol", "li", "a", "table", "thead", "tbody", "tr", "th", "td",
    "figure", "figcaption", "details", "summary", "blockquote", "mark",
}
SVG = {"svg", "defs", "g", "path", "use", "text", "tspan", "clippath", "rect", "style"}
LABELS = ['<script>alert(1)</script>', '"><img src=http://evil.example/x onerror=alert(2)>\u202e | `x`']
HOSTILE = [
    "<script>alert(3)</script>", "</blockquote></main><h1>owned</h1>", "<img src=x onerror=alert(4)>",
    "\u202eevil\u2066",
    "{{ 7 * 7 }} {% raw %}", "](javascript:alert(5)) ![p](http://evil.example/p.png)", "&lt;b&gt; <!-- x", "\x1b[2J",
    "http://evil.example www.evil.example", "# heading\n\n- item", "'\"></data><iframe src=//evil.example>",
    "$x$ **bold**",
]
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.program() is None, reason="no Chromium on this machine: apt-get install chromium"),
]


class Page(HTMLParser):
    """The tags of a page, its figures (where from, value, text) and the text that is no figure and quotes nobody."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[tuple[str, Any, str]] = []
        self.text, self.styles = "", ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "meta":
            return
        quotes = given.get("class") in ("what", "strongest") or tag in ("blockquote", "svg", "style", "footer")
        self._open.append("quote" if quotes else tag)
        if tag == "data":
            self.figures.append((given["data-from"] or "", json.loads(given["value"] or ""), ""))

    def handle_endtag(self, tag: str) -> None:
        last = self._open.pop()
        assert last in (tag, "quote"), f"{last} is closed by {tag}"

    def handle_data(self, data: str) -> None:
        if "data" in self._open:
            source, value, text = self.figures[-1]
            self.figures[-1] = source, value, text + data
        elif "quote" not in self._open:
            self.text += data
        if self.tags and self.tags[-1][0] == "style":
            self.styles += data


@pytest.fixture(scope="module")
def folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the finished run."""
    output = tmp_path_factory.mktemp("report")
    call("report", "--run", RUN, "--home", str(finished), "--output", str(output))
    return output


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run on a table made to act on whoever reads it."""
    home = tmp_path_factory.mktemp("hostile")
    with (home / "table.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text", "label", "split"])
        for i in range(96):
            nasty = HOSTILE[i % len(HOSTILE)]
            word = (GOOD, BAD)[i * 7 % 3 % 2][i % 8]
            split = "test" if i % 3 == 0 else "train"
            writer.writerow([f"{i} {nasty}", f"{word} {nasty} film {i}", LABELS[i % 2], split])
    call(
        "run", "--recipe", "smoke", "--run", "hostile", "--source", str(home / "table.csv"), "--home", str(home),
        "--set", "prepare_corpus.split_column=split", "--set", "prepare_corpus.id_column=id", "--set", "run.device=cpu",
        "--set", "tokenize_corpus.workers=1", "--set", "train_classifier.phases.1.epochs=1",
    )
    return home / "models" / "hostile" / "report"


def document(home: Path, run: str, source: str, report: Path) -> Any:
    """The JSON document that a figure names."""
    if source == "report.json":
        path = report / source
    else:
        role, name = source.split("/")
        suffix = "-fwd" if role in ("lm", "classifier") else ""
        path = home / PLACES[role] / run / f"{role}{suffix}" / name
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def at(value: Any, pointer: str) -> Any:
    """The value at a JSON pointer; None if there is none."""
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list):
            value = value[int(key)]
        elif isinstance(value, dict):
            value = value.get(key)
        else:
            return None
    return value


def says(text: str, value: Any) -> bool:
    """True if `text` is how a person would write `value`."""
    if value is None:
        return text in ("n/a", "none")
    if isinstance(value, str):
        return value.startswith(text) or value.replace("T", " ").startswith(text)
    if isinstance(value, bool | list | dict):
        return bool(json.loads(text) == value)
    if text == format_duration(value):
        return True
    number = re.fullmatch(r"([+-]?[\d,]+(?:\.(\d+))?(e[+-]?\d+)?)( %| MB| bytes)?", text)
    assert number, text
    shown = float(number[1].replace(",", ""))
    exact = 100 * value if number[4] == " %" else value
    half = 0.5 * 10 ** -len(number[2] or "")
    # Two or three digits, where that is all that is written.
    return abs(shown - exact) <= max(half * 1.001, 0.0) or abs(shown - exact) <= 0.05 * abs(exact)


def test_every_figure_is_that_of_the_json(finished: Path, folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert len(page.figures) > 300
    for place, value, text in page.figures:
        source, pointer = place.split("#", 1)
        found = at(document(finished, RUN, source, folder), pointer)
        assert value == found, place
        assert says(text, found), f"{place}: {text} for {found}"
    shown = {place for place, _, _ in page.figures}
    for pointer in ("accuracy", "accuracy_low", "accuracy_high", "majority_accuracy", "baseline/accuracy", "log_loss",
                    "confusion_matrix/1/0", "mcnemar/p", "calibration_error"):
        assert f"evaluation/metrics.json#/{pointer}" in shown
    for role in PLACES:
        assert f"{role}/manifest.json#/wall_s" in shown
        assert f"{role}/manifest.json#/peak_memory_mb" in shown
        manifest = document(finished, RUN, f"{role}/manifest.json", folder)
        for name in manifest["files"]:
            assert f"{role}/manifest.json#/files/{name.replace('/', '~1')}/sha256" in shown
        for section, values in manifest["settings"].items():
            for key in values:
                assert f"{role}/manifest.json#/settings/{section}/{key}" in shown


def test_no_number_stands_there_without_a_source(folder: Path) -> None:
    text = Page((folder / "report.html").read_text(encoding="utf-8")).text
    assert set(re.findall(r"\d[\d.,]*\d|\d", text)) <= {"95", "1", "256"}  # 95 %, F1, SHA-256


def test_the_markdown_twin_has_the_same_figures_in_the_same_order(folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    tokens = MarkdownIt("commonmark").enable("table").parse((folder / "report.md").read_text(encoding="utf-8"))
    children = [child for token in tokens for child in token.children or []]
    text = " ".join(child.content for child in children if child.type in ("text", "text_special"))
    position = 0
    for place, _, shown in page.figures:
        found = text.find(" ".join(shown.split()), position)
        assert found >= 0, f"{place}: {shown} is not in report.md after {text[position - 60 : position]!r}"
        position = found + len(shown)
    assert [t.tag for t in tokens if t.type == "table_open"] == [
        tag for tag, _ in page.tags if tag == "table"
    ]


def test_the_page_holds_what_a_report_should(folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == [
        "comparison", "classes", "calibration", "length", "mistakes", "training-lm", "training-classifier", "data",
        "lineage",
    ]
    charts = [attributes for tag, attributes in page.tags if tag == "figure"]
    assert len(charts) == 5
    assert all(len(chart["aria-label"] or "") > 40 and chart["role"] == "img" for chart in charts)
    marked = [attributes["class"] for tag, attributes in page.tags if tag == "mark"]
    derived = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert bool(marked) == bool(derived["mistakes"])
    assert sum(row["documents"] for row in derived["by_length"]) == 72


def test_it_needs_nothing_else_and_runs_nothing(folder: Path, hostile: Path) -> None:
    for path in (folder, hostile):
        check_is_inert(Page((path / "report.html").read_text(encoding="utf-8")))


def check_is_inert(page: Page) -> None:
    assert {tag for tag, _ in page.tags} <= TAGS | SVG
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} {name}"
            assert name not in ("src", "srcset", "srcdoc", "action", "formaction", "poster", "ping"), f"{tag} {name}"
            if name in ("href", "xlink:href"):
                assert re.fullmatch(r"#[\w-]+", value or ""), value
            if name == "style":
                assert not re.search(r"url\((?!#)", value or "")
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_hostile_text_is_shown_and_does_nothing(hostile: Path) -> None:
    text = (hostile / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    derived = json.loads((hostile / "report.json").read_text(encoding="utf-8"))
    assert derived["mistakes"], "nothing hostile would be quoted"
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert [tag for tag, _ in page.tags].count("section") == 9
    markdown = (hostile / "report.md").read_text(encoding="utf-8")
    assert all(c == "\n" or c.isprintable() for c in markdown)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    kinds = {t.type for token in tokens for t in (token, *(token.children or []))}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "fence", "code_block", "code_inline"}
    assert sum(token.type == "heading_open" for token in tokens if token.tag == "h1") == 1
    assert not re.search(r"(?i)[a-z]://|www\.", markdown), "GitHub makes such text a link by itself"
    for place, value, shown in page.figures:
        source, pointer = place.split("#", 1)
        assert value == at(document(hostile.parents[2], "hostile", source, hostile), pointer), (place, shown)


def test_the_same_run_gives_the_same_bytes(finished: Path, folder: Path, tmp_path: Path) -> None:
    call("report", "--run", RUN, "--home", str(finished), "--output", str(tmp_path))
    for name in ("report.html", "report.md", "report.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


# --- when it is written -------------------------------------------------------------------------


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "home")
    return tmp_path / "home"


def test_a_run_leaves_its_report_and_writes_it_once(copied: Path, arguments: list[str]) -> None:
    page = copied / "models" / RUN / "report" / "report.html"
    written = page.stat().st_mtime_ns
    again = call("run", *arguments, "--home", str(copied))
    assert f"report      {page}\n" in again.stdout
    assert page.stat().st_mtime_ns == written
    page.unlink()
    call("run", *arguments, "--home", str(copied))
    assert page.is_file()


def test_a_report_that_cannot_be_written_is_no_failed_run(copied: Path, arguments: list[str]) -> None:
    shutil.rmtree(copied / "models" / RUN / "report")
    (copied / "models" / RUN / "report").write_text("in the way", encoding="utf-8")
    done = call("run", *arguments, "--home", str(copied))
    assert "report: not written: " in done.stderr
    assert "this classifier" in done.stdout


def test_a_run_without_evaluation_has_a_report_too(copied: Path, tmp_path: Path) -> None:
    for name in ("evaluation", "classifier-fwd"):
        shutil.rmtree(copied / "models" / RUN / name)
    call("report", "--run", RUN, "--home", str(copied), "--output", str(tmp_path / "out"))
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Perplexity on validation" in text
    assert "This run has no evaluation yet." in text


def test_what_is_gone_is_said_and_what_is_damaged_refused(copied: Path, tmp_path: Path) -> None:
    shutil.rmtree(copied / "data" / RUN / "tokens")
    out = ("--run", RUN, "--home", str(copied), "--output", str(tmp_path / "out"))
    call("report", *out)
    assert "tokens is not at its place any more" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    metrics = copied / "models" / RUN / "evaluation" / "metrics.json"
    text = metrics.read_text(encoding="utf-8")
    metrics.write_text(text.replace('"test_documents": 72', '"test_documents": 73'), encoding="utf-8")
    assert "metrics.json was changed after sealing" in call("report", *out, exit_code=3).stderr


def test_nothing_sealed_nothing_reported(tmp_path: Path) -> None:
    (tmp_path / "data" / RUN).mkdir(parents=True)
    refused = call("report", "--run", RUN, "--home", str(tmp_path), exit_code=3)
    assert f"The run {RUN} has nothing to report yet. Make it: python -m pipeline run" in refused.stderr


def test_tensorboard_event_files_hold_the_history(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra: pip install '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # a second time replaces the first
        call("report", "--run", RUN, "--home", str(finished), "--output", str(tmp_path / "out"),
             "--tensorboard", str(tmp_path / "events"))
    for role in ("lm", "classifier"):
        events = EventAccumulator(str(tmp_path / "events" / RUN / role)).Reload()
        history = document(finished, RUN, f"{role}/history.jsonl", tmp_path)
        found = [(event.step, event.value) for event in events.Scalars("epochs/valid_loss")]
        assert found == [(1000 * r["epoch"], pytest.approx(r["valid_loss"], rel=1e-6)) for r in history]
        with (finished / "models" / RUN / f"{role}-fwd" / "curve.csv").open(encoding="utf-8") as stream:
            rates = [float(row["lr"]) for row in csv.DictReader(stream)]
        assert [event.value for event in events.Scalars("steps/lr")] == pytest.approx(rates, rel=1e-6)


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    with chromium.running(tmp_path_factory.mktemp("profile")) as found:
        yield found


class TestInABrowser:
    pytestmark = needs_browser

    def test_it_loads_quietly_and_fits_a_phone(
        self, browser: chromium.Browser, folder: Path, hostile: Path
    ) -> None:
        for page in (folder / "report.html", hostile / "report.html"):
            for width in (320, 375, 1100):
                browser.open(page, width)
                assert browser.complaints() == []
                assert browser.requests() == [page.resolve().as_uri()]
                assert browser.value("document.documentElement.scrollWidth") <= width
                browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
                assert browser.value("document.documentElement.scrollWidth") <= width

    def test_the_figures_on_the_screen_are_those_of_the_json(
        self, browser: chromium.Browser, finished: Path, folder: Path
    ) -> None:
        browser.open(folder / "report.html", 1100)
        seen = browser.value(
            "JSON.stringify([...document.querySelectorAll('data')].map(d => [d.dataset.from, d.value, d.textContent]))"
        )
        shown = [(place, json.loads(value), text) for place, value, text in json.loads(seen)]
        assert shown == Page((folder / "report.html").read_text(encoding="utf-8")).figures
        metrics = json.loads((finished / "models" / RUN / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
        assert browser.value("document.querySelector('.big').innerText") == f"{100 * metrics['accuracy']:.2f} %"

    def test_hostile_text_becomes_no_element(self, browser: chromium.Browser, hostile: Path) -> None:
        browser.open(hostile / "report.html", 1100)
        dangerous = "script, img, iframe, object, embed, form, input, link, base, a:not([href^='#'])"
        assert browser.value(f"document.querySelectorAll(\"{dangerous}\").length") == 0
        assert browser.value("document.querySelectorAll('main > section').length") == 9
        assert not [e for e in browser.events if e["method"] == "Page.javascriptDialogOpening"]

    def test_dark_is_dark(self, browser: chromium.Browser, folder: Path) -> None:
        colours = []
        for dark in (False, True):
            browser.open(folder / "report.html", 1100, dark=dark)
            colours.append(browser.value("getComputedStyle(document.body).backgroundColor"))
        light, dark_one = (sum(map(int, re.findall(r"\d+", colour))) for colour in colours)
        assert (light > 600, dark_one < 150) == (True, True)
