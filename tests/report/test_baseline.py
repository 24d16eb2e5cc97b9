"""pipeline.report.baseline on real sentences and names."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.report.baseline import fit_and_predict


def labelled_sentences(shared_data: Path) -> tuple[list[str], np.ndarray]:
    folder = shared_data / "seeds" / "sentiment_labelled_sentences"
    if not folder.is_dir():
        pytest.skip("the labelled sentences are not there")
    texts, labels = [], []
    for path in sorted(folder.glob("*_labelled.txt")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            text, _, label = line.rpartition("\t")
            if text:
                texts.append(text)
                labels.append(int(label))
    return texts, np.array(labels)


def test_is_clearly_above_the_majority_class_on_real_sentences(shared_data: Path) -> None:
    texts, label_ids = labelled_sentences(shared_data)
    train = np.arange(len(texts)) % 5 != 0
    test_texts = [text for text, in_train in zip(texts, train, strict=True) if not in_train]
    probabilities = fit_and_predict(
        [text for text, in_train in zip(texts, train, strict=True) if in_train], label_ids[train], test_texts, 2
    )
    assert probabilities.shape == (len(test_texts), 2)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    majority = max(np.mean(label_ids[~train] == 0), np.mean(label_ids[~train] == 1))
    accuracy = np.mean(probabilities.argmax(axis=1) == label_ids[~train])
    assert majority < 0.55
    assert accuracy > 0.76


def test_eighteen_languages_of_names(shared_data: Path) -> None:
    files = sorted((shared_data / "seeds" / "names").glob("*.txt"))
    if not files:
        pytest.skip("the names are not there")
    pairs = [(name, i) for i, path in enumerate(files) for name in path.read_text(encoding="utf-8").split()]
    texts, label_ids = [name for name, _ in pairs], np.array([i for _, i in pairs])
    train = np.arange(len(pairs)) % 4 != 0
    probabilities = fit_and_predict(
        [t for t, k in zip(texts, train, strict=True) if k], label_ids[train],
        [t for t, k in zip(texts, train, strict=True) if not k], len(files),
    )
    assert len(files) == 18
    assert probabilities.shape == (np.count_nonzero(~train), 18)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    majority = np.mean(label_ids[~train] == np.bincount(label_ids[train]).argmax())
    assert np.mean(probabilities.argmax(axis=1) == label_ids[~train]) >= majority


def test_learns_from_train_only() -> None:
    train = ["a fine film", "a fine story", "a dull film", "a dull story"]
    label_ids = np.array([1, 1, 0, 0])
    alone = fit_and_predict(train, label_ids, ["fine"], 2)
    among_others = fit_and_predict(train, label_ids, ["fine", *["unseen words here"] * 50], 2)
    assert alone[0].tolist() == among_others[0].tolist()
    assert alone[0, 1] > 0.8


def test_columns_follow_the_labels_when_train_lacks_one() -> None:
    probabilities = fit_and_predict(["fine film", "fine story", "dull film", "dull story"], np.array([3, 3, 1, 1]),
                                    ["fine"], 4)
    assert probabilities[0].argmax() == 3
    assert probabilities[0, [0, 2]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("texts", "label_ids", "expected"),
    [
        (["?", "!", "..."], [0, 0, 1], [2 / 3, 1 / 3]),  # no text has a word
        (["fine film", "fine story"], [0, 0], [1.0, 0.0]),  # one class
    ],
)
def test_answers_with_class_frequencies_where_nothing_can_be_learned(
    texts: list[str], label_ids: list[int], expected: list[float]
) -> None:
    probabilities = fit_and_predict(texts, np.array(label_ids), ["fine", ""], 2)
    assert probabilities.tolist() == [pytest.approx(expected)] * 2


def test_a_corpus_without_any_repeated_word_still_has_features() -> None:
    probabilities = fit_and_predict(["lovely", "awful"], np.array([1, 0]), ["lovely", "awful"], 2)
    assert probabilities.argmax(axis=1).tolist() == [1, 0]
