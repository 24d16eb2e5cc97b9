"""Gradient accumulation: the gradient of one wide batch, and checkpoints between its steps only."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documents import counting_documents
from fastai.learner import Callback
from fastai.losses import CrossEntropyLossFlat
from test_divergence import Poison
from tiny_training import CLASSIFIER, LM, LM_VALID, StopAt, classifier_task, language_model_task, same, train
from torch import Tensor, nn

from pipeline import stopping
from pipeline.errors import Stopped
from pipeline.training.accumulation import Accumulation
from pipeline.training.loaders import ClassifierLoader, LanguageModelLoader
from pipeline.training.state import read_state
from pipeline.training.task import Task
from pipeline.training_settings import Phase, TrainClassifierSettings, TrainingSettings

NO_DROPOUT = {"drop_mult": 0.0}
ACCUMULATED_LM = LM.model_copy(update={"bs": 2, "accumulate": 2})
ACCUMULATED_CLASSIFIER = CLASSIFIER.model_copy(update={"accumulate": 2})


@pytest.fixture(autouse=True)
def _no_request_left() -> Iterator[None]:
    yield
    stopping.forget()


class Gradients(Callback):
    """The gradient of every step of the optimizer, as it is before clipping; batch norm stands still."""

    order = Accumulation.order + 0.1
    run_valid = False

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def before_batch(self) -> None:
        for part in self.model.modules():
            if isinstance(part, nn.BatchNorm1d):
                part.eval()

    def before_step(self) -> None:
        self.steps.append({n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None})


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert ours
    for name, gradient in theirs.items():
        torch.testing.assert_close(
            ours[name], gradient, rtol=1e-4, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_language_model_trains_as_with_one_wide_batch(tmp_path: Path) -> None:
    wide, narrow = Gradients(), Gradients()
    settings = LM.model_copy(update={**NO_DROPOUT, "bs": 4})
    one = train(tmp_path / "wide", settings, (wide,))
    other = train(tmp_path / "narrow", settings.model_copy(update={"bs": 2, "accumulate": 2}), (narrow,))
    assert len(narrow.steps) == len(wide.steps) == 45
    assert_close(narrow.steps[0], wide.steps[0])
    assert_close(narrow.steps[1], wide.steps[1])  # hidden state went on in every group of rows
    for ours, theirs in zip(other.history, one.history, strict=True):
        assert ours["valid_loss"] == pytest.approx(theirs["valid_loss"], rel=1e-3)


def test_row_groups_are_the_rows_of_the_wide_batch() -> None:
    documents = counting_documents(9, 37)
    wide = LanguageModelLoader(documents, np.arange(9), bs=6, seq_len=10, seed=1)
    grouped = LanguageModelLoader(documents, np.arange(9), bs=2, seq_len=10, seed=1, groups=3)
    assert len(grouped) == 3 * len(wide)
    assert grouped.predicted_tokens == wide.predicted_tokens
    batches = list(grouped.batches(1))
    for step, (x, y) in enumerate(wide.batches(1)):
        assert torch.equal(torch.cat([b[0] for b in batches[3 * step : 3 * step + 3]]), x)
        assert torch.equal(torch.cat([b[1] for b in batches[3 * step : 3 * step + 3]]), y)
    assert torch.equal(next(grouped.batches(1, 4))[0], batches[4][0])


@pytest.mark.parametrize("class_weights", [None, [0.5, 2.0]])
def test_a_classifiers_last_group_may_lack_batches(
    tmp_path: Path, class_weights: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = None if class_weights is None else torch.tensor(class_weights)
    loss = CrossEntropyLossFlat(weight=weights)
    phases = (Phase(name="all", lr=1e-30),)  # all groups see the same weights
    settings = CLASSIFIER.model_copy(update={**NO_DROPOUT, "head_p": 0.0, "accumulate": 3, "phases": phases})
    if weights is not None:  # AR and TAR are no sums over documents that class weights could weigh
        settings = settings.model_copy(update={"alpha": 0.0, "beta": 0.0})

    def weighted_task(chosen: TrainClassifierSettings, callbacks: Any) -> Task:
        task = classifier_task(chosen, callbacks)
        return replace(task, loss=loss, weigh=None if weights is None else lambda y: float(weights[y].sum()))

    monkeypatch.setattr("tiny_training.classifier_task", weighted_task)
    found = Gradients()
    train(tmp_path, settings, (found,))
    assert len(found.steps) == 2

    reference = classifier_task(settings, ())
    reference.model.train()
    for part in reference.model.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.eval()
    assert isinstance(reference.train, ClassifierLoader)
    batches = list(reference.train)
    assert [len(y) for _, y in batches] == [4, 4, 2, 4, 4]
    for step, group in zip(found.steps, (batches[:3], batches[3:]), strict=True):
        x, y = torch.cat([b[0] for b in group]), torch.cat([b[1] for b in group])
        reference.model.zero_grad()
        logits, raw, out = reference.model(x)
        total = loss(logits, y) + settings.alpha * out.pow(2).mean()
        total = total + settings.beta * (raw[:, 1:] - raw[:, :-1]).pow(2).mean()
        total.backward()
        assert_close(step, {n: p.grad for n, p in reference.model.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_stops_between_steps_only_and_resumes_exactly(tmp_path: Path, precision: str) -> None:
    unbroken = train(tmp_path / "unbroken", ACCUMULATED_LM, precision=precision)
    for moment in (1, 2, 5, 30, 31, 30 + LM_VALID, 30 + LM_VALID + 7)[0 if precision == "fp32" else 4 :]:
        resume = tmp_path / str(moment)
        with pytest.raises(Stopped) as stopped:
            train(resume, ACCUMULATED_LM, (StopAt(moment),), precision)
        stopping.forget()
        if moment < 30:
            assert f"after step {moment + moment % 2} was stopped" in str(stopped.value)
            newest = max((resume / "checkpoints").glob("checkpoint-*"))
            assert len(read_state(newest)["row_groups"]) == 1
        assert same(train(resume, ACCUMULATED_LM, precision=precision), unbroken), f"stopped at batch {moment}"


def test_a_classifier_stops_between_steps_only_and_resumes_exactly(tmp_path: Path) -> None:
    settings = ACCUMULATED_CLASSIFIER.model_copy(update={"checkpoint_steps": 1})
    unbroken = train(tmp_path / "unbroken", settings)
    for moment in range(1, 15):
        with pytest.raises(Stopped):
            train(tmp_path / str(moment), settings, (StopAt(moment),))
        stopping.forget()
        assert same(train(tmp_path / str(moment), settings), unbroken), f"stopped at batch {moment}"


@pytest.mark.parametrize("settings", [ACCUMULATED_LM, ACCUMULATED_CLASSIFIER])
@pytest.mark.parametrize("batch", [1, 2])
def test_one_bad_batch_spoils_its_step_and_no_more(tmp_path: Path, settings: TrainingSettings, batch: int) -> None:
    class Watch(Callback):
        def after_batch(self) -> None:
            if self.training:
                weights.append(next(self.model.parameters()).detach().clone())

    weights: list[Tensor] = []
    phases = (Phase(name="all", epochs=2, lr=1e-2),)
    result = train(
        tmp_path, settings.model_copy(update={"phases": phases}), (Poison(batch, batch), Watch())
    )
    assert result.trained.skipped_steps == 1
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[3])
    assert all(tensor.isfinite().all() for tensor in result.weights.values())
    assert all(np.isfinite(r["train_loss"]) and np.isfinite(r["valid_loss"]) for r in result.history)


def test_the_rate_stands_still_within_a_step(tmp_path: Path) -> None:
    class Watch(Callback):
        def after_batch(self) -> None:
            if self.training:
                rates.append(float(self.opt.hypers[-1]["lr"]))

    rates: list[float] = []
    train(tmp_path, ACCUMULATED_LM, (Watch(),))
    assert rates[0::2] == rates[1::2]
    assert len(set(rates)) > 20


def test_the_tiny_task_gathers_what_the_settings_say() -> None:
    task = language_model_task(ACCUMULATED_LM, ())
    assert len(task.train) == 30
