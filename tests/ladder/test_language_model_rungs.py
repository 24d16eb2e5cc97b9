"""Every language-model rung learns, goes on bit-equal after a stop anywhere, and reads its own weights again."""

import io
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.learner import Callback
from torch.nn import functional as F

from pipeline import stopping
from pipeline.errors import Stopped, UsageError
from pipeline.ladder.fitting import WEIGHTS, weights
from pipeline.ladder.language_model import task_of
from pipeline.ladder.recurrent import build
from pipeline.ladder.rungs import RUNGS, LanguageModelSettings, Rung, rungs_named
from pipeline.model.weights import read_tensors
from pipeline.progress import Reporter
from pipeline.text.ids import IdStore
from pipeline.training.device import Device
from pipeline.training.phases import Trained, train_phases
from pipeline.training.task import Task

TRAINED = [rung for rung in RUNGS.values() if isinstance(rung.settings, LanguageModelSettings)]
VOCABULARY = 12


def store() -> IdStore:
    """Running text that counts from 3 to 11 and begins anew, after a mark."""
    text = np.arange(1100) % 9 + 3
    ids = np.concatenate([[2], text[:900], [2], text[900:]]).astype(np.uint16)
    return IdStore(
        Path(), ids, np.array([0, 901, 1102]), np.array(["train", "valid"]), np.full(2, -1, np.int32),
        np.array([1802, 402], np.int32), [f"w{i}" for i in range(VOCABULARY)], [],
    )


class StopAt(Callback):
    def __init__(self, moment: int) -> None:
        self.moment, self.seen = moment, 0

    def after_batch(self) -> None:
        self.seen += 1
        if self.seen == self.moment:
            stopping.ask("a test")


def short(rung: Rung, epochs: int) -> Rung:
    """The rung with epochs of 10 to 28 steps."""
    assert isinstance(rung.settings, LanguageModelSettings)
    phases = (rung.settings.phases[0].model_copy(update={"epochs": epochs}),)
    streams = rung.settings.stride is None and rung.settings.seq_len > 3
    bs = 4 if streams else 12 if rung.settings.stride != 1 else 48
    return replace(rung, settings=rung.settings.model_copy(update={"bs": bs, "phases": phases}))


def train(rung: Rung, resume: Path, callbacks: Sequence[Callback] = ()) -> tuple[Task, Trained]:
    task = replace(task_of(rung, store(), seed=3), callbacks=callbacks)
    assert isinstance(rung.settings, LanguageModelSettings)
    device = Device(torch.device("cpu"), "fp32", "fp32")
    trained = train_phases(
        task, rung.settings, rung.settings.phases, device=device, seed=3, resume=resume, fingerprint="f" * 64,
        reporter=Reporter(io.StringIO()),
    )
    return task, trained


@pytest.mark.parametrize("rung", TRAINED, ids=lambda rung: rung.name)
def test_it_learns(rung: Rung, tmp_path: Path) -> None:
    trained = train(short(rung, 3), tmp_path)[1]
    first, *_, last = trained.history
    assert last["train_loss"] < 0.9 * first["train_loss"]
    best = trained.best.record
    assert best is not None
    assert best["accuracy"] > 0.3  # nine words come equally often
    assert best["bits_per_character"] == pytest.approx(best["valid_loss"] / math.log(2) / 2, rel=0.01)


@pytest.mark.parametrize("rung", TRAINED, ids=lambda rung: rung.name)
def test_stopped_anywhere_it_ends_bit_equal(rung: Rung, tmp_path: Path) -> None:
    rung = short(rung, 2)
    task, unbroken = train(rung, tmp_path / "unbroken")
    steps, last = len(task.train), len(task.train) + len(task.valid)
    for moment in (2, steps + 1, last + 2):
        resume = tmp_path / str(moment)
        with pytest.raises(Stopped):
            train(rung, resume, [StopAt(moment)])
        stopping.forget()
        again, trained = train(rung, resume)
        for name, tensor in weights(task.model).items():
            assert torch.equal(tensor, weights(again.model)[name]), f"{name}, stopped at batch {moment}"
        timeless = [[{k: v for k, v in r.items() if not k.endswith("_s")} for r in t.history]
                    for t in (trained, unbroken)]
        assert timeless[0] == timeless[1]
        assert trained.best.record is not None
        assert (trained.best.folder / WEIGHTS).read_bytes() == (unbroken.best.folder / WEIGHTS).read_bytes()
        shutil.rmtree(resume)


@pytest.mark.parametrize("rung", TRAINED, ids=lambda rung: rung.name)
def test_its_weights_are_read_again(rung: Rung, tmp_path: Path) -> None:
    task, other = (task_of(rung, store(), seed) for seed in (1, 2))
    task.save(tmp_path)
    assert set(read_tensors(tmp_path / WEIGHTS)) == set(weights(other.model))
    other.load(tmp_path)
    words = next(iter(task.train.batches(0)))[0]
    for model in (task.model.eval(), other.model.eval()):
        model.reset()
    torch.testing.assert_close(task.model(words)[0], other.model(words)[0], rtol=0, atol=0)


def model_of(name: str) -> torch.nn.Module:
    settings = RUNGS[name].settings
    assert isinstance(settings, LanguageModelSettings)
    torch.manual_seed(0)
    return build(name, VOCABULARY, settings).eval()


def test_the_loop_is_the_unrolled_model() -> None:
    words = torch.randint(VOCABULARY, (5, 3))
    torch.testing.assert_close(model_of("LMModel1")(words)[0], model_of("LMModel2")(words)[0])
    assert model_of("LMModel1")(words)[0].shape == (5, 1, 64)


@pytest.mark.parametrize("name", ["LMModel3", "LMModel4", "LMModel5", "LMModel6", "LMModel7", "CharStatefulRnn"])
def test_state_goes_on_from_batch_to_batch(name: str) -> None:
    model, words = model_of(name), torch.randint(VOCABULARY, (5, 12))
    whole = model(words)[0][:, -1]
    model.reset()
    pieces = [model(piece)[0][:, -1] for piece in words.split(4, 1)]
    torch.testing.assert_close(pieces[-1], whole)
    assert not any(part.requires_grad for layer in model[0].hidden for part in layer)
    model.reset()
    assert not torch.equal(model(words[:, 8:])[0][:, -1], whole)


def test_three_unrolled_characters_are_the_loop_over_three() -> None:
    characters = torch.randint(VOCABULARY, (5, 3))
    torch.testing.assert_close(model_of("Char3")(characters)[0], model_of("CharLoop")(characters)[0])


def test_a_character_network_predicts_after_eight_or_after_each() -> None:
    characters = torch.randint(VOCABULARY, (5, 8))
    each, last = model_of("CharSeqRnn").train()(characters)[0], model_of("CharRnn")(characters)[0]
    assert each.shape == (5, 8, 256)
    torch.testing.assert_close(each[:, -1:], last)
    torch.testing.assert_close(model_of("CharSeqRnn")(characters)[0], last)  # used, it speaks after the whole window
    assert model_of("CharLoopConcat")(characters)[0].shape == (5, 1, 256)


@pytest.mark.parametrize("name", ["LMModel2", "CharRnn"])
def test_a_loop_without_state_forgets(name: str) -> None:
    model, words = model_of(name), torch.randint(VOCABULARY, (5, 3))
    first = model(words)[0]
    assert torch.equal(model(words)[0], first)


def test_tied_weights_are_one_tensor_and_saved_once() -> None:
    model = model_of("LMModel7")
    assert model[1].decoder.weight is model[0].embedding.weight
    assert sum(tensor.shape == (VOCABULARY, 64) for tensor in weights(model).values()) == 1
    logits = F.linear(model(torch.zeros(1, 4, dtype=torch.int64))[0], model[0].embedding.weight)
    assert logits.shape == (1, 4, VOCABULARY)


def test_rungs_come_in_the_order_of_the_ladder() -> None:
    assert [rung.name for rung in rungs_named(["AWD_LSTM", "LMModel3", "kneser-ney"])] == [
        "kneser-ney", "LMModel3", "AWD_LSTM",
    ]


def test_an_unknown_rung_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"There is no rung 'LMModel9'\. Did you mean 'LMModel[1-7]'"):
        rungs_named(["LMModel9"])
