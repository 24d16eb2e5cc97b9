"""Training in fp32 against plain fastai: same data, same weights, same losses."""

from pathlib import Path

import numpy as np
import torch
from documents import random_documents
from fastai.data.core import DataLoaders
from fastai.learner import Callback
from fastai.text.data import LMDataLoader
from fastai.text.learner import language_model_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config, awd_lstm_lm_split

from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.decoder_loss import DecoderLoss
from pipeline.model.weights import decoder_tensors, encoder_tensors
from pipeline.progress import Reporter
from pipeline.training.device import Device
from pipeline.training.loaders import LanguageModelLoader
from pipeline.training.metrics import TokenAccuracy, TokenLoss
from pipeline.training.phases import seed_phase, train_phases
from pipeline.training.task import Task
from pipeline.training_settings import FinetuneLMSettings, Phase

VOCABULARY_SIZE = 304


class StepLosses(Callback):
    """StepLosses of every training step."""

    def __init__(self, draw: bool) -> None:
        self.draw = draw
        self.values: list[float] = []

    def before_train(self) -> None:
        if self.draw:  # fastai's loader takes a worker seed from torch's generator at the start of every epoch
            torch.empty((), dtype=torch.int64).random_()

    def after_batch(self) -> None:
        if self.training:
            self.values.append(float(self.loss.detach()))


def test_thirty_steps_give_the_losses_of_language_model_learner(tmp_path: Path) -> None:
    documents = random_documents([150] * 65, VOCABULARY_SIZE)
    everything = np.arange(65)
    train = LanguageModelLoader(documents, everything, bs=8, seq_len=40, seed=5)
    valid = LanguageModelLoader(documents, everything[:4], bs=8, seq_len=40)
    assert len(train) >= 30
    settings = FinetuneLMSettings(
        emb_sz=40, n_hid=64, n_layers=3, bs=8, seq_len=40, phases=(Phase(name="all", lr=4e-3),), log_every=1
    )
    architecture = Architecture.from_settings(settings, VOCABULARY_SIZE)
    torch.manual_seed(1)
    model = build_language_model(architecture, settings, logits=False)

    # Plain fastai: its own loader, model builder, learner and defaults, on the same documents in the same order.
    in_order = [torch.from_numpy(documents.document(i).astype(np.int64)) for i in train.order(0)]
    loaders = DataLoaders(
        LMDataLoader(in_order, bs=8, seq_len=40, shuffle=False), LMDataLoader(in_order[:4], bs=8, seq_len=40)
    )
    loaders.vocab = [str(i) for i in range(VOCABULARY_SIZE)]
    config = {**awd_lstm_lm_config, "emb_sz": 40, "n_hid": 64, "n_layers": 3}
    theirs = StepLosses(draw=False)
    learn = language_model_learner(loaders, AWD_LSTM, config=config, pretrained=False, path=tmp_path, cbs=theirs)
    with torch.no_grad():
        for name, tensor in {**encoder_tensors(model[0]), **decoder_tensors(model)}.items():
            {**encoder_tensors(learn.model[0]), **decoder_tensors(learn.model)}[name].copy_(tensor)
    seed_phase(5, 0)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 4e-3, wd=0.01)

    ours = StepLosses(draw=True)
    task = Task(
        name="finetune_lm", model=model, splitter=awd_lstm_lm_split, loss=DecoderLoss(model[1].decoder), train=train,
        valid=valid, metrics=[TokenLoss(), TokenAccuracy()], unit="tokens", units=train.predicted_tokens,
        summarize=lambda figures: {"valid_loss": figures["token_loss"]}, save=lambda folder: None,
        load=lambda folder: None, callbacks=[ours],
    )
    train_phases(
        task, settings, settings.phases, device=Device(torch.device("cpu"), "fp32", "fp32"), seed=5,
        resume=tmp_path / "resume", fingerprint="", reporter=Reporter(),
    )
    assert len(ours.values) == len(theirs.values) >= 30
    np.testing.assert_allclose(ours.values, theirs.values, rtol=0, atol=1e-4)
