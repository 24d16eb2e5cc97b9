"""The parts of a report: figures with their places, what is worked out, charts, colours."""

import itertools
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hostile_texts import BASE

from pipeline.report import charts, derived, results
from pipeline.report.blocks import Hero, MarkedWord, Mistake, Mistakes, Note, Page, Prose, Section, Table
from pipeline.report.figures import Figure, Sources
from pipeline.report.gather import DERIVED, METRICS
from pipeline.report.page import render_html, render_markdown

CSS = (Path(charts.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")


def sources(**metrics: Any) -> Sources:
    return Sources({METRICS: BASE | metrics, DERIVED: {}})


def test_no_accuracy_above_all_stands_at_an_axis() -> None:
    svg = str(charts.accuracies([("a", {"accuracy": 0.99, "accuracy_low": 0.97, "accuracy_high": 1.0})], 0))
    shares = {float(share) for share in re.findall(r">([\d.]+) ?%<", svg)}
    assert 100 in shares
    assert max(shares) == 100


def test_accuracies_near_each_other_have_axis_labels_that_differ() -> None:
    found = (0.97, 0.981, 0.987)
    rows = [(str(a), {"accuracy": a, "accuracy_low": a - 0.002, "accuracy_high": a + 0.002}) for a in found]
    shares = re.findall(r">([\d.]+) ?%<", str(charts.accuracies(rows, 0)))
    assert len(shares) > 3
    assert len(set(shares)) == len(shares)


def test_a_figure_knows_its_place() -> None:
    found = Sources({"a.json": {"x/y": [{"~": 0.25}], "none": None}})
    assert found.figure("a.json", "x/y", 0, "~", form="percent") == Figure("a.json", "/x~1y/0/~0", 0.25, "25.00 %")
    for path in (("none",), ("x/y", 7), ("missing", "deeper"), ("x/y", 0, "~", "deeper")):
        assert found.figure("a.json", *path, form="fixed4").text == "n/a"
    assert found.figure("b.json", "x").text == "n/a"


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        ("count", 1234567, "1,234,567"), ("share", 2.3e-05, "0.0023 %"), ("signed", -0.456, "-0.46"),
        ("general", 0.0123, "0.012"), ("megabytes", 1234.5, "1,234 MB"), ("plain", True, "true"),
        ("time", "2026-11-22T05:32:55+00:00", "2026-11-22 05:32"), ("plain", [1, "é"], '[1, "é"]'),
        ("hash", "0123456789abcdef", "0123456789ab"),
    ],
)
def test_forms(form: str, value: Any, text: str) -> None:
    assert Sources({"a": {"v": value}}).figure("a", "v", form=form).text == text


# --- what is worked out -------------------------------------------------------------------------


@given(st.lists(st.integers(1, 300), min_size=1, max_size=400), st.integers(0, 9))
@settings(max_examples=60)
def test_every_document_is_in_one_bin_of_length(lengths: list[int], seed: int) -> None:
    n_tokens = np.array(lengths)
    correct = np.random.default_rng(seed).random(len(lengths)) < 0.7
    rows = derived.by_length(n_tokens, correct, seed)
    assert 1 <= len(rows) <= derived.LENGTH_BINS
    assert sum(row["documents"] for row in rows) == len(lengths)
    assert sum(row["documents"] * row["accuracy"] for row in rows) == pytest.approx(correct.sum())
    for row, after in pairwise(rows):
        assert row["from_tokens"] <= row["to_tokens"] < after["from_tokens"]
    for row in rows:
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]


def test_bins_of_length_are_about_equally_full() -> None:
    rows = derived.by_length(np.arange(800), np.ones(800, dtype=bool), 0)
    assert [row["documents"] for row in rows] == [100] * 8
    assert (rows[0]["from_tokens"], rows[-1]["to_tokens"]) == (0, 799)


def test_a_long_document_is_shown_where_its_strongest_words_are() -> None:
    values = [0.0] * 400
    values[300], values[310] = -2.0, 1.5
    start, stop = derived._window(values)
    assert stop - start == derived.SHOWN_WORDS
    assert start <= 300
    assert stop > 310
    assert derived._window([float("nan")] * 50 + [1.0] * 20) == (50, 70)
    assert derived._window([1.0, 2.0]) == (0, 2)
    assert derived._window([]) == (0, 0)


# --- what is said -------------------------------------------------------------------------------


def test_transductive_is_on_the_headline() -> None:
    (hero, *notes) = results.headline(sources(protocol=BASE["protocol"] | {"transductive": True}))
    assert isinstance(hero, Hero)
    assert hero.label == "Accuracy on test (published protocol)"
    assert any(isinstance(note, Note) and "transductive" in str(note.line[0]) for note in notes)
    (hero, *notes) = results.headline(sources())
    assert isinstance(hero, Hero)
    assert hero.label == "Accuracy on test"
    assert notes == []


def test_many_classes_give_a_list_of_the_largest_confusions() -> None:
    n = 30
    matrix = np.arange(n * n).reshape(n, n).tolist()
    per_class = [{"label": f"c{i}", "precision": None, "recall": 0.5, "f1": None, "documents": 3} for i in range(n)]
    section = results.classes(sources(labels=[f"c{i}" for i in range(n)], confusion_matrix=matrix, per_class=per_class))
    table = section.blocks[-1]
    assert isinstance(table, Table)
    assert len(table.rows) == 20
    assert [cell[0] for cell in table.rows[0][:2]] == ["c29", "c28"]
    assert isinstance(figure := table.rows[0][2][0], Figure)
    assert figure.value == matrix[29][28]


def test_no_mistakes_are_said() -> None:
    found = results.mistakes(Sources({DERIVED: {"mistakes": []}}))
    assert isinstance(found.blocks[0], Prose)
    assert found.blocks[0].line == ["None: every test document was classified rightly."]


def test_marks_follow_the_contributions() -> None:
    row = {
        "doc_id": "d", "label": "a", "predicted": "b", "probability": 0.9, "tokens": 4, "words_before": 2,
        "words_after": 0,
        "words": [["good", -2.0, False], ["!", 0.1, True], ["bad", 1.0, False]], "strongest": [["good", -2.0]],
    }
    attribution = {"method": "m", "precision": "fp32"}
    found = results.mistakes(Sources({DERIVED: {"mistakes": [row], "attribution": attribution}}))
    html = render_html(page_of(found))
    assert '… <mark class="against s4">good</mark>!' in html
    assert ' <mark class="for s2">bad</mark></blockquote>' in html
    assert "good \\-2.00" not in render_markdown(page_of(found))
    assert "… good\\! bad Strongest: good -2.00" in render_markdown(page_of(found))


def page_of(section: Section) -> Page:
    return Page("title", [["chip"]], [], [section], ["foot"])


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=80)
def test_any_text_leaves_the_page_as_it_is(one: str, other: str) -> None:
    def tags(text: str, name: str) -> list[str]:
        mistake = Mistake([text], [MarkedWord(name, 2, False)], False, False, [(text, Figure(name, text, text, name))])
        blocks = [Prose([text]), Table([name, text], [[[name], [text]]]), Mistakes([mistake])]
        return re.findall(r"<[/!a-z][^\s>]*", render_html(page_of(Section("s", "t", blocks))))

    assert tags(one, other) == tags("plain", "text")


# --- how it looks -------------------------------------------------------------------------------


def test_charts_take_their_colours_from_the_page_and_are_the_same_each_time() -> None:
    history = [{"epoch": i + 1, "phase": "$x^$", "train_loss": 1.0, "valid_loss": 2.0 - i} for i in range(2)]
    curve = [{"epoch": i / 10, "phase": "$x^$", "train_loss": 1 / (i + 1), "lr": i} for i in range(20)]
    scored = {"accuracy": 0.8, "accuracy_low": 0.7, "accuracy_high": 0.9}
    drawn = {
        "accuracies": lambda: charts.accuracies([("majority", {"accuracy": 0.5}), ("a $x^$ & <b>", scored)], 1),
        "training-lm": lambda: charts.training("lm", curve, history, [("$x^$", 0), ("<b>", 1)]),
        "training-classifier": lambda: charts.training("classifier", [], history, [("$x^$", 0)]),
        "reliability": lambda: charts.reliability(BASE["calibration_bins"]),
        "lengths": lambda: charts.lengths([scored | {"from_tokens": 1, "to_tokens": 9}]),
        "ladder": lambda: charts.ladder([("a $x^$ & <b>", 0.5, 10, 0.5), ("b", 0.6, 20, 5000)]),
    }
    for name, draw in drawn.items():
        svg = draw()
        assert svg == draw()
        assert svg.startswith('<svg viewBox="')
        assert svg.rstrip().endswith("</svg>")
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000", "#ffffff"}
        assert "var(--accent)" in svg
        assert "<b>" not in svg
        assert "font-family" not in svg
        for identifier in re.findall(r'id="([^"]*)"', svg):
            assert identifier.startswith(name)


def test_names_and_numbers_of_the_ladder_can_be_read() -> None:
    rungs = [
        ("kneser-ney", 0.55, 156468, 2), ("Char3", 0.45, 104308, 12), ("CharLoop", 0.53, 104308, 100),
        ("CharLoopConcat", 0.54, 169844, 130), ("CharRnn", 0.561, 104308, 456), ("CharSeqRnn", 0.5468, 104308, 280),
        ("CharStatefulRnn", 0.5687, 104308, 280), ("AWD_LSTM", 0.59, 418400, 240),
    ]
    svg = charts.ladder(rungs)
    texts = re.findall(r'<text [^>]*x="([-0-9.]+)" y="([-0-9.]+)"[^>]*>([^<]*)</text>', svg)
    numbers = [text for _, _, text in texts if not text[0].isalpha()]
    assert {"100,000", "200,000", "500,000", "1", "10", "100", "1,000", "50%", "55%"} <= set(numbers)
    assert not [text for text in numbers if not re.fullmatch(r"[0-9.,]+%?", text)]
    names = {rung[0] for rung in rungs}
    boxes = [(float(x), float(y), float(x) + 3.5 * len(name)) for x, y, name in texts if name in names]
    assert len(boxes) == 2 * len(rungs)
    for (x0, y0, end0), (x1, y1, end1) in itertools.combinations(boxes, 2):
        assert abs(y0 - y1) > 6 or end0 < x1 or end1 < x0
    timeless = [(*rung[:3], None) for rung in rungs]
    named = {kind: charts.ladder(kind).count("CharLoopConcat") for kind in (tuple(rungs), tuple(timeless))}
    assert list(named.values()) == [2, 1]  # without a time it stands beside its parameters alone
    assert charts.ladder([*timeless[:-1], rungs[-1]]).count("AWD_LSTM") == 2


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, 1.4.3."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def mixed(rgb: str, alpha: float, below: str) -> str:
    parts = [
        round(alpha * int(over) + (1 - alpha) * int(below[i : i + 2], 16))
        for over, i in zip(rgb.split(","), (1, 3, 5), strict=True)
    ]
    return "#" + "".join(f"{part:02x}" for part in parts)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_pass_contrast(theme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[theme]
    colour = dict(re.findall(r"--([a-z]+): ([^;]+);", block))
    for background in ("paper", "card"):
        for text in ("ink", "muted", "accent"):
            assert contrast(colour[text], colour[background]) >= 4.5, (text, background)
        assert contrast(colour["second"], colour[background]) >= 3
    assert contrast(colour["ink"], colour["note"]) >= 4.5
    for name, strongest in (("for", 0.32), ("against", 0.32), ("shade", 0.36)):
        assert f"rgba(var(--{name}), {strongest})" in CSS
        assert contrast(colour["ink"], mixed(colour[name], strongest, colour["card"])) >= 4.5, name
