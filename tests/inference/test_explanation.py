"""Explanations: occlusion is what leaving a word out does; the command writes terminals, pages and JSON."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tiny_classifiers import LABELS, seal_classifier
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import Stopped, UsageError
from pipeline.inference.attribution import word_groups
from pipeline.inference.bundle import ClassifierBundle, load_classifier_bundle
from pipeline.inference.explanation import explain
from pipeline.inference.occlusion import occlude
from pipeline.settings import RunSettings

FP32 = RunSettings(device="cpu", precision="fp32")
TEXT = "A Warm, witty film! The dull frobnicating story."
EVIL = "<script>alert(1)</script> \x1b[2J\u202e {{ 7 * 7 }} \" onload=x"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal_classifier(tmp_path_factory.mktemp("sealed") / "classifier-fwd")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> ClassifierBundle:
    return load_classifier_bundle(folder, FP32)


def odds(bundle: ClassifierBundle, ids: np.ndarray, class_id: int) -> float:
    p = bundle.probabilities([ids])[0, class_id]
    return math.log(p / (1 - p))


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_occlusion_is_the_change_that_leaving_the_word_out_makes(tmp_path: Path, direction: str) -> None:
    bundle = load_classifier_bundle(seal_classifier(tmp_path / "c", direction=direction), FP32)
    tokens, ids = bundle.text.read(TEXT)
    groups = word_groups(bundle.text.tokenizer, tokens)
    assert any(len(group) > 1 for group in groups), "xxmaj warm is one word"
    for class_id in (0, 1):
        found = occlude(bundle.classifier, ids, class_id, groups)
        assert found[0] == 0.0
        for group in groups[1:]:
            change = odds(bundle, ids, class_id) - odds(bundle, np.delete(ids, group), class_id)
            assert found[group].sum() == pytest.approx(change, abs=1e-5)
        assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize(("direction", "kept"), [("fwd", [0, 4, 5, 6]), ("bwd", [0, 1, 2, 3])])
def test_a_long_document_has_numbers_for_the_words_read_last(tmp_path: Path, direction: str, kept: list[int]) -> None:
    bundle = load_classifier_bundle(seal_classifier(tmp_path / "c", direction=direction), FP32)
    ids = bundle.text.read("film dull story witty cast fine")[1]
    assert len(ids) == 7
    found = occlude(bundle.classifier, ids, 1, [[i] for i in range(7)], words=3)
    assert np.flatnonzero(np.isfinite(found)).tolist() == kept


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_words_are_those_of_the_text_unknown_ones_too(bundle: ClassifierBundle, method: str) -> None:
    explanation = explain(bundle, TEXT, method)  # type: ignore[arg-type]
    assert [word.text for word in explanation.words] == [
        "a", "Warm", ",", "witty", "film", "!", "The", "dull", "frobnicating", "story", "."
    ]
    assert sum(explanation.probabilities.values()) == pytest.approx(1)
    assert explanation.label == max(explanation.probabilities, key=lambda label: explanation.probabilities[label])
    assert explanation.explained == explanation.label
    assert len(explanation.strongest()) == 5
    assert not {word.text for word in explanation.strongest()} & set(",!.")


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_of_two_classes_one_is_the_other_turned_round(bundle: ClassifierBundle, method: str) -> None:
    one, other = (explain(bundle, TEXT, method, label).words for label in LABELS)  # type: ignore[arg-type]
    assert [word.value for word in one] == pytest.approx([-word.value for word in other], abs=1e-5)


def test_an_empty_text_has_a_class_and_no_words(bundle: ClassifierBundle) -> None:
    for method in ("gradient", "occlusion"):
        explanation = explain(bundle, " ", method)  # type: ignore[arg-type]
        assert explanation.words == explanation.strongest() == []


def test_a_class_there_is_not_is_refused(bundle: ClassifierBundle) -> None:
    with pytest.raises(UsageError, match=r"has no class 'good'. It has: 'negative', 'positive'\."):
        explain(bundle, TEXT, label="good")


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_it_can_be_stopped_between_steps(bundle: ClassifierBundle, method: str) -> None:
    n_predicting = n_seen = 0

    def count() -> None:
        nonlocal n_predicting
        n_predicting += 1

    def stop() -> None:
        nonlocal n_seen
        n_seen += 1
        if n_seen > n_predicting:  # the class is known, and its words are weighed
            raise Stopped("enough")

    bundle.probabilities([bundle.text.read(TEXT)[1]], between_steps=count)
    with pytest.raises(Stopped, match="enough"):
        explain(bundle, TEXT, method, between_steps=stop)  # type: ignore[arg-type]


# --- the command --------------------------------------------------------------------------------


def call(*arguments: str, stdin: str | None = None, colours: str = "") -> str:
    result = CliRunner().invoke(
        app, ["explain", *arguments], input=stdin,
        env={"FORCE_COLOR": colours, "NO_COLOR": None, "TERM": "xterm-256color"},
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_plain_lines_mark_words_without_colours(folder: Path) -> None:
    for method in ("gradient", "occlusion"):
        text = call("--model", str(folder), "--method", method, TEXT)
        assert "\x1b" not in text
        assert "{+" in text
        assert f"method: {'input x gradient' if method == 'gradient' else 'occlusion'}" in text
        assert "strongest: " in text


def test_a_terminal_gets_colours_and_underlines(folder: Path) -> None:
    text = call("--model", str(folder), TEXT, colours="1")
    assert "\x1b[" in text
    assert ";4;" in text.replace("\x1b[4;", ";4;")
    assert "{+" not in text


def test_json_lines_one_per_text_of_a_pipe(folder: Path) -> None:
    lines = call("--model", str(folder), "--json", "--class", "negative", stdin="a warm film\n\ndull\n").splitlines()
    first, empty, last = map(json.loads, lines)
    assert [word["text"] for word in first["words"]] == ["a", "warm", "film"]
    assert set(first) == {"label", "probabilities", "explained", "method", "words"}
    assert first["explained"] == "negative"
    assert empty["words"] == []
    assert last["words"][0].keys() == {"text", "value", "glued"}


class Tags(HTMLParser):
    """The tags of a page and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_self_contained_and_hostile_text_does_nothing(folder: Path, tmp_path: Path) -> None:
    shown = call("--model", str(folder), "--html", str(tmp_path / "e.html"), EVIL, TEXT)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    text = (tmp_path / "e.html").read_text(encoding="utf-8")
    page = Tags(text)
    assert set(page.tags) <= {
        "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "h1", "h2", "p",
        "span", "bdi", "mark", "blockquote",
    }
    assert page.tags.count("section") == 2
    assert "script" in page.text
    assert "49" not in page.text
    assert "frobnicating" in page.text
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "Content-Security-Policy" in text


def test_nothing_to_explain_and_nowhere_to_write(folder: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "e.html"
    result = CliRunner().invoke(app, ["explain", "--model", str(folder), "--html", str(missing), "a"])
    assert result.exit_code == 2
    assert "is in a folder that is not there. Make it: mkdir -p" in result.output
    folded = CliRunner().invoke(app, ["explain", "--model", "no model", "--html", str(tmp_path), "a"])
    assert folded.exit_code == 2, "before a model is looked for"
    assert f"--html {tmp_path} is a folder. Choose another name." in " ".join(folded.output.split())
    denied = CliRunner().invoke(app, ["explain", "--model", str(folder), "--html", "/sys/e.html", "a"])
    assert denied.exit_code == 7, denied.output
    assert "explain could not read or write" in denied.output
