"""The corpora of the notes by the names of their recipes: their rungs, and what the notes reached beside them."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.compare import FIGURES, PAGE, chosen_rungs, plan_on, table
from pipeline.ladder.page import metric_beside
from pipeline.ladder.rungs import RUNGS

LETTERS = [
    "kneser-ney", "Char3", "CharLoop", "CharLoopConcat", "CharRnn", "CharSeqRnn", "CharStatefulRnn", "AWD_LSTM",
]
BAGS = ["bag-of-words", "TF-IDF", "NB-SVM", "n-gram-embeddings"]
WORDS = [*BAGS, "MLP", "CNN", "BiLSTM", "ULMFiT"]
NAMES = ["char-rnn-linear", "char-rnn-relu"]


@pytest.mark.parametrize(("recipe", "rungs", "with_figures"), [
    ("nietzsche", LETTERS, {"CharLoop", "CharLoopConcat", "CharRnn"}),
    ("sentences", WORDS, {"MLP", "CNN", "BiLSTM"}),
    ("names", [*BAGS, *NAMES, "char-lstm", "ULMFiT"], set(NAMES)),
    ("names-tenth", [*BAGS, *NAMES, "char-lstm", "ULMFiT"], set(NAMES)),
    ("bow-languages", WORDS, {"bag-of-words"}),
])
def test_each_recipe_has_its_rungs_and_figures(
    tmp_path: Path, recipe: str, rungs: list[str], with_figures: set[str]
) -> None:
    plan = plan_on(recipe, None, tmp_path)
    chosen = chosen_rungs(plan, None)
    assert [rung.name for rung in chosen] == rungs
    kind = plan.runs[0].recipe.prepare_corpus.kind
    assert {rung.name for rung in chosen if kind in rung.published} == with_figures


def test_a_loss_is_told_in_bits_and_by_its_name() -> None:
    figures = RUNGS["CharRnn"].published["nietzsche"]
    assert figures.value == 2.23
    assert "validation loss of 1.5452 nats" in figures.protocol
    assert metric_beside(vars(figures)) == " bits per character"
    assert metric_beside(vars(RUNGS["MLP"].published["sentences"])) == metric_beside(None) == ""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the comparison on bow-languages."""
    home = tmp_path_factory.mktemp("home")
    arguments = ["compare", "--on", "bow-languages", "--rungs", "bag-of-words,NB-SVM,ULMFiT", "--home", str(home)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return home / "models" / "bow-languages" / "ladder"


def test_both_test_sentences_are_right(compared: Path) -> None:
    document = json.loads((compared / FIGURES).read_text(encoding="utf-8"))
    assert [row["rung"] for row in document["rungs"]] == ["bag-of-words", "NB-SVM", "ULMFiT"]
    for row in document["rungs"][:2]:
        manifest = json.loads((compared.parents[2] / row["seeds"][0]["artifact"] / "manifest.json").read_text())
        assert manifest["metrics"]["test_documents"] == 2
        assert row["mean"]["accuracy"] == 1
    assert document["rungs"][0]["published"]["value"] == 1
    assert re.match(r"bag-of-words +1\.0000 +1 ", table(document).splitlines()[1])
    page = (compared / PAGE).read_text(encoding="utf-8")
    assert "What the notes reached" in page
    assert "two test sentences; not the same as ours" in page


def test_what_is_no_accuracy_is_named_beside_its_figure(compared: Path) -> None:
    document = json.loads((compared / FIGURES).read_text(encoding="utf-8"))
    document["rungs"][0]["published"] = vars(RUNGS["char-rnn-linear"].published["names"])
    assert " 0.55 macro recall " in table(document)
