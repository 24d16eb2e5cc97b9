"""Contributions of tokens: exact where the model is linear, the derivative where it is not, and grouped into words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_classifiers import ARCHITECTURE, random_classifier, random_rows, save, seal_classifier

from pipeline.artifact import open_artifact
from pipeline.inference.attribution import attribute, input_x_gradient, log_odds, words
from pipeline.inference.bundle import LoadedClassifier
from pipeline.inference.classifier import load_classifier
from pipeline.model.architecture import HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.settings import RunSettings
from pipeline.text.char import CharTokenizer
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.word import WordTokenizer
from pipeline.training.device import Device
from pipeline.training.loaders import pad_documents

SHAPE = HeadShape(n_classes=3, lin_ftrs=(6,), seq_len=5, max_len=20)
FP32 = Device(torch.device("cpu"), "fp32", "fp32")
GOOD, BAD, UNKNOWN = 10, 11, 0


def loaded(model: Any, shape: HeadShape, folder: Path, direction: str = "fwd") -> LoadedClassifier:
    save(model, shape, folder)
    return LoadedClassifier(load_classifier(folder, torch.float32, torch.device("cpu")), direction, FP32)


def odds(classifier: LoadedClassifier, rows: list[Any], class_id: int) -> Any:
    probabilities = np.concatenate([classifier.batch([row], 1) for row in rows])[:, class_id]
    return np.log(probabilities) - np.log1p(-probabilities)


@pytest.fixture(scope="module")
def random_one(tmp_path_factory: pytest.TempPathFactory) -> LoadedClassifier:
    model = random_classifier(SHAPE)
    with torch.no_grad():
        model[0].module.encoder.weight.normal_(std=1.0)  # so that words make a difference
        for parameter in model[0].module.rnns.parameters():
            parameter.mul_(3.0)
    return loaded(model, SHAPE, tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> LoadedClassifier:
    """A classifier that has learned that GOOD means class 1 and BAD class 0."""
    shape = HeadShape(n_classes=2, lin_ftrs=(6,), seq_len=5, max_len=20)
    torch.manual_seed(2)
    model = build_classifier(ARCHITECTURE, shape).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(60):
        rows = with_words(step)
        labels = torch.tensor([int(GOOD in row) for row in rows])
        loss = torch.nn.functional.cross_entropy(model(pad_documents(rows, shape.seq_len))[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    return loaded(model.eval(), shape, tmp_path_factory.mktemp("taught"))


def with_words(seed: int) -> list[Any]:
    """Documents of the same length, each with GOOD or BAD somewhere among words that mean nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(8):
        row = rng.integers(12, 41, 10)
        row[0], row[rng.integers(1, 10)] = 2, (BAD, GOOD)[number % 2]
        rows.append(row)
    return rows


def test_the_sum_is_exact_for_a_linear_score() -> None:
    torch.manual_seed(0)
    embedded, weight = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)

    def score(x: torch.Tensor) -> torch.Tensor:
        return (x * weight).sum() + 3.0

    found = input_x_gradient(embedded, score)
    assert found == pytest.approx((embedded * weight).sum(dim=1).numpy(), abs=1e-12)
    assert found.sum() == pytest.approx(float(score(embedded) - score(torch.zeros(7, 5))), abs=1e-12)


def test_log_odds_are_those_of_the_probability() -> None:
    logits = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    p = torch.softmax(logits, 0)
    for class_id in range(3):
        assert log_odds(logits, class_id).item() == pytest.approx(float(torch.log(p / (1 - p))[class_id]))


@pytest.mark.parametrize("length", [1, 4, 5, 6, 19, 21, 43])
def test_it_is_the_derivative_of_what_the_classifier_says(random_one: LoadedClassifier, length: int) -> None:
    """Scaling one token's embedding by 1 +- h changes the log-odds by 2 h times its contribution."""
    (row,) = random_rows([length], seed=length)
    row = np.array([*np.minimum(row[:-1], 39), 40])  # its last token is nowhere else: its embedding can be changed
    table, h = random_one.model.encoder.embedding.weight, 1e-2
    before = table[40].clone()
    tolerance = 3e-3 * max(np.abs(attribute(random_one, row, class_id)).max() for class_id in range(3))
    for class_id in range(3):
        found = attribute(random_one, row, class_id)[-1]
        moved = []
        for factor in (1 + h, 1 - h):
            table[40] = before * factor
            moved.append(odds(random_one, [row], class_id)[0])
        table[40] = before
        assert found == pytest.approx((moved[0] - moved[1]) / (2 * h), rel=0.02, abs=tolerance)


def test_every_token_of_the_document_has_a_number(random_one: LoadedClassifier) -> None:
    (row,) = random_rows([12])
    found = attribute(random_one, row, 0)
    assert found.shape == (12,)
    assert np.isfinite(found).all()
    assert (np.abs(found) > 1e-7).sum() > 10


def test_backwards_the_numbers_are_those_of_the_tokens_they_belong_to(random_one: LoadedClassifier) -> None:
    backwards = LoadedClassifier(random_one.model, "bwd", FP32)
    (row,) = random_rows([12])
    np.testing.assert_array_equal(attribute(backwards, row[::-1], 1), attribute(random_one, row, 1)[::-1])


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_a_long_document_has_numbers_for_what_is_read_last(random_one: LoadedClassifier, direction: str) -> None:
    classifier = LoadedClassifier(random_one.model, direction, FP32)
    (row,) = random_rows([33])
    whole, part = attribute(classifier, row, 2), attribute(classifier, row, 2, gradient_tokens=9)
    last = slice(-9, None) if direction == "fwd" else slice(None, 9)
    np.testing.assert_allclose(part[last], whole[last], atol=1e-6)
    assert np.isnan(part).sum() == 24


def test_it_agrees_with_leaving_the_word_out(taught: LoadedClassifier) -> None:
    """The word that decides is mostly the strongest, and its sign is that of what happens when it becomes xxunk."""
    strongest = agreed = 0
    rows = with_words(1000)
    for row in rows:
        contributions = attribute(taught, row, 1)
        at = int(np.flatnonzero((row == GOOD) | (row == BAD))[0])
        occluded = row.copy()
        occluded[at] = UNKNOWN
        (whole, without) = odds(taught, [row, occluded], 1)
        assert np.sign(whole - without) == (1 if row[at] == GOOD else -1)
        agreed += np.sign(contributions[at]) == np.sign(whole - without)
        strongest += int(np.abs(contributions).argmax()) == at
    assert agreed == len(rows)
    assert strongest >= len(rows) - 2


def test_it_works_on_a_sealed_classifier_in_its_own_precision(tmp_path: Path) -> None:
    artifact = open_artifact(seal_classifier(tmp_path / "classifier-fwd"), "classifier")
    row = random_rows([15])[0] % 16
    full = attribute(LoadedClassifier.load(artifact, RunSettings(device="cpu", precision="fp32")), row, 1)
    half = attribute(LoadedClassifier.load(artifact, RunSettings(device="cpu", precision="bf16")), row, 1)
    assert np.corrcoef(full, half)[0, 1] > 0.98


TEXT = "The Film isn't a LABOR of love!!! (Small) worlds. Yes yes yes yes"


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        (WordTokenizer(), ["The", "Film", "is", "n't", "a", "LABOR", "of", "love", "!!!", "(", "small", ")", "worlds",
                           ".", "Yes", "yes yes yes"]),
        (CharTokenizer(), ["The", "Film", "isn't", "a", "LABOR", "of", "love", "!!!", "(", "small", ")", "worlds",
                           ".", "Yes", "yes yes yes"]),
    ],
    ids=["word", "char"],
)
def test_tokens_become_words_and_nothing_is_lost(tokenizer: Tokenizer, expected: list[str]) -> None:
    tokens = tokenizer.tokenize(TEXT)
    values = [2.0**-i for i in range(len(tokens))]
    found = words(tokenizer, tokens, values)
    assert [word.text for word in found] == expected
    assert sum(word.value for word in found) == sum(values) - values[0]  # xxbos is no word
    joined = "".join(("" if word.glued else " ") + word.text for word in found).strip()
    assert joined == tokenizer.detokenize(tokens)


def test_no_tokens_no_words() -> None:
    assert words(WordTokenizer(), ["xxbos"], [1.0]) == []
