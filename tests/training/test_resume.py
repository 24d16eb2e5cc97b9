"""Exact resume: stopped anywhere, a training goes on to the very bits of an unbroken one."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastai.learner import Callback
from tiny_training import CLASSIFIER, FINGERPRINT, LM, LM_STEPS, LM_VALID, StopAt, same, train

from pipeline import stopping
from pipeline.errors import OutOfMemoryError, Stopped, UsageError
from pipeline.machine import limit_behind
from pipeline.progress import Reporter
from pipeline.training.checkpoints import CheckpointStore
from pipeline.training.state import read_plain, read_state
from pipeline.training_settings import Phase, TrainingSettings

EPOCH = LM_STEPS + LM_VALID
PRECISIONS = ("fp32", "bf16", "fp16")


@pytest.fixture(autouse=True)
def _no_request_left() -> Iterator[None]:
    yield
    stopping.forget()


class Killed(Exception):
    """Stands for a kill: nothing in the pipeline catches it."""


class KillAt(Callback):
    """Raise at one training step of this process."""

    def __init__(self, step: int) -> None:
        self.step, self.seen = step, 0

    def after_batch(self) -> None:
        self.seen += self.training
        if self.seen == self.step:
            raise Killed("now")


def stop(resume: Path, settings: TrainingSettings, moment: int, precision: str = "fp32") -> str:
    """Stop a training at its batch number `moment`; the message."""
    with pytest.raises(Stopped) as stopped:
        train(resume, settings, (StopAt(moment),), precision)
    stopping.forget()
    return str(stopped.value)


def checkpoints(resume: Path) -> list[Path]:
    return sorted((resume / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_batch_of_a_language_model_is_a_stopping_point(tmp_path: Path, precision: str) -> None:
    unbroken = train(tmp_path / "unbroken", precision=precision)
    moments = range(1, 3 * EPOCH + 1) if precision == "bf16" else (1, LM_STEPS, LM_STEPS + 1, EPOCH, EPOCH + 7, 53)
    for moment in moments:
        resume = tmp_path / str(moment)
        stop(resume, LM, moment, precision)
        again = train(resume, precision=precision)
        assert same(again, unbroken), f"stopped at batch {moment}"
        assert again.trained.precision == precision
        assert again.trained.skipped_steps == unbroken.trained.skipped_steps
        shutil.rmtree(resume)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_batch_of_a_classifier_is_a_stopping_point(tmp_path: Path, precision: str) -> None:
    unbroken = train(tmp_path / "unbroken", CLASSIFIER, precision=precision)
    moments = range(1, 22) if precision == "fp32" else (1, 5, 6, 8, 13, 21)
    for moment in moments:
        resume = tmp_path / str(moment)
        stop(resume, CLASSIFIER, moment, precision)
        again = train(resume, CLASSIFIER, precision=precision)
        assert same(again, unbroken), f"stopped at batch {moment}"
        assert again.trained.best.record is not None
        best, expected = again.trained.best.folder, unbroken.trained.best.folder
        assert (best / "encoder.safetensors").read_bytes() == (expected / "encoder.safetensors").read_bytes()
        shutil.rmtree(resume)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_optimizer_scaler_generators_and_hidden_state_are_those_of_an_unbroken_run(
    tmp_path: Path, precision: str
) -> None:
    last = 3 * EPOCH - LM_VALID - 1
    stop(tmp_path / "once", LM, last, precision)
    for moment in (7, 9, 11, last - 27):  # 7, then 9 more, ...
        stop(tmp_path / "often", LM, moment, precision)
    one, other = checkpoints(tmp_path / "once")[-1], checkpoints(tmp_path / "often")[-1]
    assert one.name == other.name
    for name in ("state.safetensors", "encoder.safetensors", "decoder.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    states = [{k: v for k, v in read_plain(path).items() if k not in ("train_s", "history")} for path in (one, other)]
    assert states[0] == states[1]
    state = read_state(one)
    assert state["optimizer"]["state"][0]["step"] == 2 * LM_STEPS - 1
    assert bool(state["scaler"]) == (precision == "fp16")
    assert len(state["hidden"]["layers"]) == LM.n_layers
    assert state["position"]["phase"] == 1


def test_a_kill_loses_no_more_than_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    settings = LM.model_copy(update={"checkpoint_steps": 4})
    unbroken = train(tmp_path / "unbroken", settings)
    for step in (3, 4, 6, LM_STEPS, LM_STEPS + 9, 3 * LM_STEPS):
        resume = tmp_path / str(step)
        with pytest.raises(Killed):
            train(resume, settings, (KillAt(step),))
        again = train(resume, settings)
        assert same(again, unbroken)
        done = LM_STEPS * ((step - 1) // LM_STEPS) + ((step - 1) % LM_STEPS) // 4 * 4
        assert (f"going on after step {done} " in again.log) == (done > 0)


def test_checkpoints_do_not_change_the_result(tmp_path: Path) -> None:
    often = LM.model_copy(update={"checkpoint_steps": 1, "checkpoint_minutes": 1e-9, "keep_checkpoints": 3})
    seldom = LM.model_copy(update={"checkpoint_steps": None, "checkpoint_minutes": None})
    assert same(train(tmp_path / "often", often), train(tmp_path / "seldom", seldom))
    assert len(checkpoints(tmp_path / "often")) == 3
    assert len(checkpoints(tmp_path / "seldom")) == 2


def test_a_stop_says_where_and_its_reason(tmp_path: Path) -> None:
    assert stop(tmp_path, LM, EPOCH + 7) == (
        "finetune_lm after step 22 was stopped by a test. The same command goes on."
    )


def test_a_run_that_is_done_trains_nothing_more(tmp_path: Path) -> None:
    first = train(tmp_path)
    again = train(tmp_path)
    assert same(first, again)
    assert "step 5/15" in first.log
    assert "step 5/15" not in again.log
    assert again.trained.precision == "fp32"


def test_other_surroundings_are_said(tmp_path: Path) -> None:
    stop(tmp_path, LM, 5)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        log = train(tmp_path).log
    finally:
        torch.set_num_threads(threads)
    assert f"last bits may differ from an unbroken run, since it had threads {threads}, now {threads + 1}" in log


@pytest.mark.parametrize(("before", "after"), [("bf16", "fp32"), ("fp16", "bf16"), ("bf16", "fp16")])
def test_another_precision_does_not_go_on(tmp_path: Path, before: str, after: str) -> None:
    """As where `auto` means bf16 on one machine and fp32 on the next."""
    stop(tmp_path, LM, 5, before)
    kept = checkpoints(tmp_path)
    here = f"trained in {before} up to {kept[-1].name}; here .* {after}.*: rm -r {kept[-1].parent}, and"
    with pytest.raises(UsageError, match=here):
        train(tmp_path, precision=after)
    assert checkpoints(tmp_path) == kept
    shutil.copytree(tmp_path, tmp_path / "anew")
    assert train(tmp_path, precision=before).trained.precision == before
    shutil.rmtree(tmp_path / "anew" / kept[-1].parent.relative_to(tmp_path))
    assert train(tmp_path / "anew", precision=after).trained.precision == after


def test_weights_of_an_epoch_that_is_done_again_are_not_kept(tmp_path: Path) -> None:
    """A kill after they were written and before the checkpoint of the epoch: elsewhere the last bits may differ."""
    here, unbroken = tmp_path / "here", tmp_path / "unbroken"
    stop(here, CLASSIFIER, 6)
    store = CheckpointStore(
        here / "checkpoints", FINGERPRINT, keep=3, reporter=Reporter(io.StringIO()), prefix="best"
    )
    store.save(1, lambda folder: (folder / "encoder.safetensors").write_bytes(b"of another machine"), 0)
    assert same(train(here, CLASSIFIER), train(unbroken, CLASSIFIER))
    found, expected = (
        {path.relative_to(folder): path.read_bytes() for path in folder.glob("checkpoints/best-*/*.safetensors")}
        for folder in (here, unbroken)
    )
    assert found == expected


@pytest.mark.parametrize("epoch", range(1, 7))
def test_a_schedule_goes_on_exactly_at_the_end_of_an_epoch(tmp_path: Path, epoch: int) -> None:
    """Rates of slanted-triangular are as exact as the place in the schedule that they are made of."""
    phase = Phase(name="all", epochs=7, lr=1e-2, schedule="slanted-triangular")
    settings = CLASSIFIER.model_copy(update={"phases": (phase,)})
    steps = 5
    with pytest.raises(Killed):
        train(tmp_path / "x", settings, (KillAt(epoch * steps + 1),))
    assert same(train(tmp_path / "x", settings), train(tmp_path / "unbroken", settings))


@pytest.mark.parametrize("settings", [LM, CLASSIFIER])
def test_damage_leads_to_the_checkpoint_before_it(tmp_path: Path, settings: TrainingSettings) -> None:
    settings = settings.model_copy(update={"checkpoint_steps": 2})
    unbroken = train(tmp_path / "unbroken", settings)
    stop(tmp_path / "x", settings, 17)
    resume = tmp_path / "x"
    newest, before = checkpoints(resume)[::-1][:2]
    for path in (newest, before):
        data = bytearray((path / "encoder.safetensors").read_bytes())
        data[len(data) // 2] ^= 1
        (path / "encoder.safetensors").write_bytes(bytes(data))
        again = train(shutil.copytree(resume, tmp_path / f"copy-{path.name}"), settings)
        assert f"checkpoint {path.name} is not used: encoder.safetensors is damaged" in again.log
        assert same(again, unbroken)
        assert ("going on after step" in again.log) == (path is newest)
        assert (tmp_path / f"copy-{path.name}" / "checkpoints" / f"damaged-{path.name}-1" / "WHY").exists()


def test_a_damaged_best_epoch_is_trained_again(tmp_path: Path) -> None:
    unbroken = train(tmp_path / "unbroken", CLASSIFIER)
    stop(tmp_path / "x", CLASSIFIER, 15)
    best = min((tmp_path / "x" / "checkpoints").glob("best-*"))
    (best / "head.safetensors").write_bytes(b"no tensors")
    again = train(tmp_path / "x", CLASSIFIER)
    assert "of its best epoch, head.safetensors is damaged" in again.log
    assert same(again, unbroken)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    unbroken = train(tmp_path / "unbroken", fingerprint="a" * 64)
    stop(tmp_path / "x", LM, 9)
    again = train(tmp_path / "x", fingerprint="a" * 64)
    assert "it is checkpoint 9 of run ffffffffffff" in again.log
    assert same(again, unbroken)


def test_exhausted_memory_leaves_the_checkpoint_and_a_way_on(tmp_path: Path) -> None:
    class Glutton(Callback):
        def after_batch(self) -> None:
            if self.training and self.iter == 6:
                torch.empty(2**60)

    settings = LM.model_copy(update={"checkpoint_steps": 2})
    with pytest.raises(RuntimeError, match="can't allocate memory") as exhausted:
        train(tmp_path / "x", settings, (Glutton(),))
    expected = limit_behind(exhausted.value, "finetune_lm", "python -m pipeline run --set finetune_lm.bs=2")
    assert isinstance(expected, OutOfMemoryError)
    assert str(expected) == (
        "finetune_lm ran out of memory. The same command goes on where there is more memory; "
        "here, try python -m pipeline run --set finetune_lm.bs=2"
    )
    again = train(tmp_path / "x", settings)
    assert "going on after step 6 " in again.log
    assert same(again, train(tmp_path / "unbroken", settings))
