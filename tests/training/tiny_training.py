"""A language model and a classifier small enough to train hundreds of times, and ways to break their training off."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from documents import counting_documents
from fastai.learner import Callback
from fastai.losses import CrossEntropyLossFlat
from fastai.text.models.awdlstm import awd_lstm_clas_split, awd_lstm_lm_split

from pipeline import stopping
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier, build_language_model
from pipeline.model.decoder_loss import DecoderLoss
from pipeline.model.weights import load_classifier, load_language_model, save_classifier, save_language_model
from pipeline.progress import Reporter
from pipeline.training.device import Device
from pipeline.training.group import ONE, Group
from pipeline.training.history import Record
from pipeline.training.loaders import ClassifierLoader, LanguageModelLoader
from pipeline.training.metrics import CLASSIFIER_METRICS, TokenAccuracy, TokenLoss, classifier_figures
from pipeline.training.phases import Trained, seed_weights, train_phases
from pipeline.training.sharing import rows_of_rank
from pipeline.training.task import Task
from pipeline.training_settings import FinetuneLMSettings, Phase, TrainClassifierSettings, TrainingSettings

FINGERPRINT = "f" * 64
LM = FinetuneLMSettings(
    emb_sz=16, n_hid=24, n_layers=2, bs=4, seq_len=10, clip=0.25, log_every=5,
    phases=(Phase(name="frozen", lr=2e-2, train_last=1), Phase(name="all", epochs=2, lr=1e-2)),
)
LM_STEPS, LM_VALID = 15, 3
"""Batches of an epoch."""
CLASSIFIER = TrainClassifierSettings(
    bs=4, seq_len=20, lin_ftrs=(8,), log_every=5,
    phases=(Phase(name="head", lr=2e-2, train_last=1), Phase(name="all", epochs=2, lr=1e-2, lr_lowest=1e-3)),
)
CPU = torch.device("cpu")
ARCHITECTURE = Architecture(32, 16, 24, 2)


@dataclass(frozen=True)
class Result:
    """What a training left behind."""

    weights: dict[str, torch.Tensor]
    trained: Trained
    log: str

    @property
    def history(self) -> list[dict[str, Any]]:
        """The history without what a clock says."""
        return without_times(self.trained.history)


def without_times(history: Sequence[Record]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if not k.endswith("_s")} for r in history]


def same(one: Result, other: Result) -> bool:
    """Bit-equal weights, equal histories and curves."""
    return one.history == other.history and one.trained.curve == other.trained.curve and all(
        torch.equal(one.weights[name].view(torch.uint8), other.weights[name].view(torch.uint8))
        for name in one.weights if one.weights[name].dim()
    )


class StopAt(Callback):
    """Ask for a stop at one batch, counted over training and validation of all epochs of this process."""

    def __init__(self, moment: int) -> None:
        self.moment, self.seen = moment, 0

    def after_batch(self) -> None:
        self.seen += 1
        if self.seen == self.moment:
            stopping.ask("a test")


def language_model_task(
    settings: FinetuneLMSettings, callbacks: Sequence[Callback], group: Group = ONE
) -> Task:
    documents = counting_documents(12, 60)
    seed_weights(3)
    model = build_language_model(Architecture.from_settings(settings, 32), settings, logits=False)
    train = LanguageModelLoader(documents, np.arange(10), bs=settings.bs, seq_len=settings.seq_len, seed=3,
                                groups=settings.accumulate, random_lengths=settings.random_seq_len,
                                part=group.part(settings.bs))
    valid = LanguageModelLoader(documents, np.arange(10, 12), bs=4, seq_len=10, part=group.part(4))
    return Task(
        name="finetune_lm", model=model, splitter=awd_lstm_lm_split, loss=DecoderLoss(model[1].decoder), train=train,
        valid=valid, metrics=[TokenLoss(), TokenAccuracy()], unit="tokens", units=train.predicted_tokens,
        summarize=lambda f: {"valid_loss": f["token_loss"], "accuracy": f["token_accuracy"]},
        save=lambda folder: save_language_model(model, folder), load=lambda folder: load_language_model(model, folder),
        callbacks=callbacks,
    )


def classifier_task(
    settings: TrainClassifierSettings, callbacks: Sequence[Callback], group: Group = ONE
) -> Task:
    documents = counting_documents(26, 45)
    labels = np.arange(26) % 2
    seed_weights(3)
    model = build_classifier(ARCHITECTURE, HeadShape.from_settings(settings, 2), settings)
    train, valid = (
        ClassifierLoader(documents, np.arange(*chosen), labels, bs=settings.bs, seq_len=settings.seq_len, seed=seed,
                         part=rows_of_rank(group))
        for chosen, seed in (((0, 18), 3), ((18, 26), None))
    )
    return Task(
        name="train_classifier", model=model, splitter=awd_lstm_clas_split, loss=CrossEntropyLossFlat(), train=train,
        valid=valid, metrics=CLASSIFIER_METRICS, unit="documents", units=18,
        summarize=classifier_figures,
        save=lambda folder: save_classifier(model, folder), load=lambda folder: load_classifier(model, folder),
        callbacks=callbacks, keep_best="accuracy", pools=True,
    )


def train(
    resume: Path, settings: TrainingSettings = LM, callbacks: Sequence[Callback] = (), precision: str = "fp32",
    fingerprint: str = FINGERPRINT, *, group: Group = ONE,
    device: torch.device = CPU,
) -> Result:
    """Train to the end, or to where a callback breaks it off; going on from what lies in `resume`.

    Each rank of `group` calls it.
    """
    shared = {} if group is ONE else {"group": group}  # tests put tasks of their own in the place of these
    if isinstance(settings, TrainClassifierSettings):
        task = classifier_task(settings, callbacks, **shared)
        phases = settings.phases
    else:
        assert isinstance(settings, FinetuneLMSettings)
        task = language_model_task(settings, callbacks, **shared)
        phases = settings.phases
    log = io.StringIO()
    trained = train_phases(
        task, settings, phases, device=Device(device, precision, precision), seed=3, resume=resume,
        fingerprint=fingerprint, reporter=Reporter(log), group=group,
    )
    weights = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    return Result(weights, trained, log.getvalue())
