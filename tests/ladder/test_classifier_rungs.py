"""Every classifier rung learns; the neural ones go on bit-equal after a stop and do not read their padding."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.learner import Callback
from torch import nn
from torch.nn import functional as F

from pipeline import stopping
from pipeline.errors import DataError, Stopped
from pipeline.ladder.classification import predict, task_of
from pipeline.ladder.classifiers import CharRNN, build
from pipeline.ladder.fitting import WEIGHTS, weights
from pipeline.ladder.linear import NaiveBayesFeatures, TfIdf
from pipeline.ladder.rungs import LEAST_EPOCHS, RUNGS, ClassifierSettings, Rung
from pipeline.ladder.scoring import headline, labelled, write_scores
from pipeline.model.architecture import PAD_ID
from pipeline.progress import Reporter
from pipeline.text.ids import IdStore
from pipeline.training.device import Device
from pipeline.training.phases import Trained, train_phases
from pipeline.training.task import Task

TRAINED = [rung for rung in RUNGS.values() if isinstance(rung.settings, ClassifierSettings)]
CPU = Device(torch.device("cpu"), "fp32", "fp32")
VOCABULARY = 30


class Store(IdStore):
    """Documents whose tokens tell their label; named as those of an artifact would be."""

    doc_ids = np.array([str(i) for i in range(120)], dtype=np.object_)  # type: ignore[assignment]


def store(n_classes: int = 3) -> Store:
    """Documents of 5 to 14 tokens: a mark, tokens of the class, and tokens that say nothing."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % n_classes
    documents = [
        [2, *(10 + 5 * label + rng.integers(0, 5, 4 + i % 5)), *rng.integers(25, 30, i % 6)]
        for i, label in enumerate(labels)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(d) for d in documents])])
    return Store(
        Path("data/t/ids"), np.concatenate(documents).astype(np.uint16), offsets,
        np.repeat(["train", "valid", "test"], [80, 20, 20]), labels.astype(np.int32), np.diff(offsets).astype(np.int32),
        [f"w{i}" for i in range(VOCABULARY)], ["a", "b", "c"][:n_classes],
    )


class StopAt(Callback):
    def __init__(self, moment: int) -> None:
        self.moment, self.seen = moment, 0

    def after_batch(self) -> None:
        self.seen += 1
        if self.seen == self.moment:
            stopping.ask("a test")


def short(rung: Rung, epochs: int) -> Rung:
    assert isinstance(rung.settings, ClassifierSettings)
    phases = (rung.settings.phases[0].model_copy(update={"epochs": epochs}),)
    return replace(rung, settings=rung.settings.model_copy(update={"bs": 8, "phases": phases}))


def train(rung: Rung, resume: Path, callbacks: Sequence[Callback] = ()) -> tuple[Task, Trained]:
    task = replace(task_of(rung, store(), labelled(store()), 3, CPU), callbacks=callbacks)
    assert rung.settings is not None
    trained = train_phases(
        task, rung.settings, rung.settings.phases, device=CPU, seed=3, resume=resume, fingerprint="f" * 64,
        reporter=Reporter(io.StringIO()),
    )
    return task, trained


@pytest.mark.parametrize("rung", TRAINED, ids=lambda rung: rung.name)
def test_many_documents_are_read_less_often(rung: Rung) -> None:
    settings = rung.settings
    assert isinstance(settings, ClassifierSettings)
    (meant,) = (phase.epochs for phase in settings.phases)
    epochs = {n: settings.for_documents(n).phases[0].epochs for n in (10, settings.documents, 22_500, 10**9)}
    assert epochs[10] == epochs[settings.documents] == meant
    assert epochs[10**9] == LEAST_EPOCHS < meant
    assert epochs[22_500] == max(LEAST_EPOCHS, -(-meant * settings.documents // 22_500))
    kept = settings.for_documents(22_500).model_dump(exclude={"phases"})
    assert kept == settings.model_dump(exclude={"phases"})


@pytest.mark.parametrize("rung", TRAINED, ids=lambda rung: rung.name)
def test_it_learns_and_predicts(rung: Rung, tmp_path: Path) -> None:
    task, trained = train(short(rung, 25), tmp_path)
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    task.load(trained.best.folder)
    documents, here = store(), labelled(store()).test
    probabilities = predict(task.model, documents, here, CPU)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (probabilities.argmax(1) == documents.label_ids[here]).mean() > 0.5
    order = np.arange(len(here))[::-1]  # a document's prediction does not depend on where it stands
    np.testing.assert_allclose(predict(task.model, documents, here[order], CPU), probabilities[order], atol=1e-5)


@pytest.mark.parametrize("rung", TRAINED, ids=lambda rung: rung.name)
def test_stopped_anywhere_it_ends_bit_equal(rung: Rung, tmp_path: Path) -> None:
    rung = short(rung, 2)
    task, unbroken = train(rung, tmp_path / "unbroken")
    for moment in (3, len(task.train) + 1, len(task.train) + len(task.valid) + 2):
        resume = tmp_path / str(moment)
        with pytest.raises(Stopped):
            train(rung, resume, [StopAt(moment)])
        stopping.forget()
        again, trained = train(rung, resume)
        for name, tensor in weights(task.model).items():
            assert torch.equal(tensor, weights(again.model)[name]), f"{name}, stopped at batch {moment}"
        assert (trained.best.folder / WEIGHTS).read_bytes() == (unbroken.best.folder / WEIGHTS).read_bytes()


@pytest.mark.parametrize("rung", TRAINED, ids=lambda rung: rung.name)
def test_padding_and_what_is_too_long_change_nothing(rung: Rung) -> None:
    assert isinstance(rung.settings, ClassifierSettings)
    torch.manual_seed(0)
    settings = rung.settings.model_copy(update={"seq_len": 12})
    model = build(rung.name, VOCABULARY, 3, 40, settings).eval()
    ids = torch.randint(10, VOCABULARY, (4, 9))
    padded = F.pad(ids, (0, 3), value=PAD_ID)
    torch.testing.assert_close(model(ids)[0], model(padded)[0])
    if rung.name not in {"bag-of-words", "n-gram-embeddings"}:
        longer = torch.cat([torch.randint(10, VOCABULARY, (4, 12)), torch.randint(10, VOCABULARY, (4, 20))], 1)
        torch.testing.assert_close(model(longer)[0], model(longer[:, :12])[0])


def test_counts_are_all_that_the_bag_of_words_sees() -> None:
    settings = RUNGS["bag-of-words"].settings
    assert isinstance(settings, ClassifierSettings)
    model = build("bag-of-words", VOCABULARY, 3, 9, settings)
    bag = model[0].network
    nn.init.normal_(bag.weight.weight)
    ids = torch.tensor([[5, 6, 5, PAD_ID]])
    expected = 2 * bag.weight.weight[5] + bag.weight.weight[6] + bag.bias
    torch.testing.assert_close(model(ids)[0][0], expected)


@pytest.mark.parametrize("relu", [False, True])
def test_the_character_network_is_that_of_the_note(relu: bool) -> None:
    """One-hot letters and the state before, through linear layers on both together, letter by letter."""
    torch.manual_seed(0)
    model = CharRNN(VOCABULARY, 3, 12, ClassifierSettings(n_hid=6), relu=relu)
    for letters in ([4], [4, 9, 7], [3, 3, 8, 20, 11]):
        state = torch.zeros(6)
        for letter in letters:
            one_hot = F.one_hot(torch.tensor(letter), VOCABULARY).float()
            output_weight = torch.cat([model.predict_read.weight.T, model.predict_state.weight], 1)
            output = output_weight @ torch.cat([one_hot, state]) + model.predict_state.bias
            read = one_hot @ model.read.weight
            state = (F.relu(read) if relu else read) + model.keep.weight @ state + model.keep.bias
        row = F.pad(torch.tensor([letters]), (0, 6 - len(letters)), value=PAD_ID)
        torch.testing.assert_close(model(row)[0], output)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kind", [TfIdf, NaiveBayesFeatures])
def test_linear_rungs_learn(kind: type[TfIdf] | type[NaiveBayesFeatures], n_classes: int) -> None:
    documents = store(n_classes)
    texts = [" ".join(f"t{i}" for i in documents.document(n)) for n in range(len(documents))]
    model = kind(texts[:80], documents.label_ids[:80])
    found = model.probabilities(texts[100:])
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found.argmax(1) == documents.label_ids[100:]).mean() > 0.9
    assert all(np.isfinite(tensor).all() for tensor in model.tensors().values())


def test_the_ratio_of_naive_bayes() -> None:
    model = NaiveBayesFeatures(["t1 t2", "t1", "t3", "t3 t1"], np.array([1, 1, 0, 0]))
    names = model.vectorizer.get_feature_names_out().tolist()
    assert names == ["t1", "t1 t2", "t2", "t3", "t3 t1"]
    # Of class 1 there are 2, 1, 1, 0, 0 and one more of each, 9 in all; of class 0 1, 0, 0, 2, 1, 9 in all.
    np.testing.assert_allclose(model.ratios[0], np.log([3 / 2, 2 / 1, 2 / 1, 1 / 3, 1 / 2]))


def test_scores_are_those_of_an_evaluation(tmp_path: Path) -> None:
    documents = store()
    test = labelled(documents).test
    probabilities = np.full((20, 3), 0.1)
    probabilities[np.arange(20), documents.label_ids[test]] = 0.8
    probabilities[:5] = [0.8, 0.1, 0.1]
    found = write_scores(documents, test, probabilities, 2.0, seed=1, work=tmp_path)
    wrong = int((documents.label_ids[test[:5]] != 0).sum())
    assert found["accuracy"] == pytest.approx(1 - wrong / 20)
    assert found["documents_per_s"] == 10
    assert (tmp_path / "predictions.parquet").exists()
    result = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert headline(result)["macro_recall"] == pytest.approx(np.mean([row["recall"] for row in result["per_class"]]))


def test_a_run_without_labelled_test_documents_is_refused() -> None:
    without = replace(store(), splits=np.repeat(["train", "valid"], [100, 20]))
    with pytest.raises(DataError, match="ids has 0 labelled documents of test and 3 labels; classifiers need"):
        labelled(without)


def test_a_run_that_looks_at_no_document_of_a_label_is_refused() -> None:
    labels = store().label_ids.copy()
    labels[labels == 2] = 1
    with pytest.raises(DataError, match=r"No labelled document of train that is looked at has the label '.*'\. Let it"):
        labelled(replace(store(), label_ids=labels))
