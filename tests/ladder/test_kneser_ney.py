"""The n-gram rung: nltk's figures, and probabilities that are probabilities."""

import math
import random

import numpy as np
import pytest
from nltk.lm import KneserNeyInterpolated
from nltk.util import everygrams

from pipeline import stopping
from pipeline.errors import Stopped
from pipeline.ladder import kneser_ney
from pipeline.ladder.kneser_ney import FALLBACK_DISCOUNT, KneserNey

LETTERS = "abcdef"


def running_text(n: int, seed: int = 0) -> np.ndarray:
    """Letters that tend to follow their neighbour in the alphabet."""
    rng, text = random.Random(seed), [0]
    while len(text) < n:
        text.append((text[-1] + rng.choice([1, 1, 1, 2, 3])) % 5)  # the sixth letter never comes
    return np.array(text, dtype=np.uint16)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_it_is_the_model_of_nltk(order: int) -> None:
    ids = running_text(300)
    words = [LETTERS[i] for i in ids]
    theirs = KneserNeyInterpolated(order, discount=0.3)
    theirs.fit([list(everygrams(words, max_len=order))], vocabulary_text=list(LETTERS))
    # nltk does not discount single words, so that one that was never seen has probability 0.
    ours = KneserNey.count(ids, order, len(LETTERS), [0.0] + [0.3] * (order - 1))
    rng = random.Random(1)
    for _ in range(60):
        context = [rng.randrange(5) for _ in range(order - 1)]
        expected = [theirs.score(letter, [LETTERS[i] for i in context]) for letter in LETTERS]
        np.testing.assert_allclose(ours.probabilities(context), expected, atol=1e-12)


def test_a_worked_example() -> None:
    # a b a b b a: of single words, "a" follows b alone, "b" follows a and b.
    model = KneserNey.count(np.array([0, 1, 0, 1, 1, 0]), 2, 3, [0.0, 0.5])
    np.testing.assert_allclose(model.probabilities([]), [1 / 3, 2 / 3, 0])
    # After b: a twice, b once; half a count of each goes to the single words.
    np.testing.assert_allclose(model.probabilities([1]), [1.5 / 3 + 1 / 9, 0.5 / 3 + 2 / 9, 0])
    np.testing.assert_allclose(model.probabilities([2]), model.probabilities([]))


def test_every_word_is_possible_and_all_add_up_to_one() -> None:
    model = KneserNey.count(running_text(200), 3, 6)
    assert all(0 < grams.discount < 1 for grams in model.orders)
    for context in ([], [3], [0, 1], [5, 5], [4, 5, 0, 1]):
        found = model.probabilities(context)
        assert found.min() > 0
        assert found.sum() == pytest.approx(1)
    np.testing.assert_array_equal(model.probabilities([4, 5, 0, 1]), model.probabilities([0, 1]))


def test_the_score_of_a_text_is_that_of_its_words() -> None:
    model, text = KneserNey.count(running_text(400), 4, 6), running_text(60, seed=5)
    each = [model.probabilities(text[max(0, i - 3) : i].tolist()) for i in range(1, len(text))]
    nats, hits = model.score(text)
    assert nats == pytest.approx(-sum(math.log(p[word]) for p, word in zip(each, text[1:], strict=True)))
    assert hits == sum(int(p.argmax() == word) for p, word in zip(each, text[1:], strict=True))
    uniform = (len(text) - 1) * math.log(6)
    assert nats < 0.8 * uniform


def test_discounts_are_estimated_where_they_can_be() -> None:
    once_twice = KneserNey.count(np.array([0, 1, 2, 0, 1]), 2, 3)
    assert once_twice.orders[1].discount == pytest.approx(2 / (2 + 2 * 1))  # "12" and "20" once, "01" twice
    assert once_twice.orders[0].discount == FALLBACK_DISCOUNT
    assert once_twice.parameters == 6


def test_scoring_stops_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kneser_ney, "_BLOCK_ELEMENTS", 60)
    model, text = KneserNey.count(running_text(400), 3, 6), running_text(60, seed=5)
    in_blocks = model.score(text)
    stopping.ask("a test")
    try:
        with pytest.raises(Stopped):
            model.score(text)
    finally:
        stopping.forget()
    monkeypatch.undo()
    assert model.score(text) == pytest.approx(in_blocks)
