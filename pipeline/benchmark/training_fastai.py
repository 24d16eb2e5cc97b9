"""Plain fastai's side of the training cases: its learners, loaders and defaults, as its documentation uses them."""

from typing import Any

import fastai.callback.schedule  # noqa: F401  # gives Learner its fit_one_cycle
import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders, Datasets
from fastai.data.transforms import Categorize, ItemGetter
from fastai.metrics import Perplexity, accuracy
from fastai.text.data import LMDataLoader, Numericalize, Pad_Chunk, SortedDL, TensorText
from fastai.text.learner import TextLearner, language_model_learner, text_classifier_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config

from pipeline.artifact import open_artifact
from pipeline.benchmark.sizes import Sizes
from pipeline.benchmark.turns import Turns, Work
from pipeline.text.ids import IdStore

LAST = 1000
"""Order of callbacks that come after all others."""


class _Steps(Callback):
    """Takes a turn for every training step after the first ones."""

    order, run_valid = LAST, False

    def __init__(self, turns: Turns, sizes: Sizes) -> None:
        self.turns, self.sizes, self.done = turns, sizes, 0

    def after_batch(self) -> None:
        """A step is done."""
        self.done += 1
        if self.done > self.sizes.lm_warm_steps:
            self.turns.stop(self.sizes.lm_bs * self.sizes.lm_seq_len)
        if self.done >= self.sizes.lm_warm_steps:
            self.turns.wait()


class _Epochs(Callback):
    """Takes a turn for every epoch but the first; validation is not measured."""

    order, run_valid = LAST, False

    def __init__(self, turns: Turns, n_documents: int) -> None:
        self.turns, self.n_documents = turns, n_documents

    def before_train(self) -> None:
        """An epoch begins."""
        if self.epoch:
            self.turns.wait()

    def after_train(self) -> None:
        """Its training is done."""
        if self.epoch:
            self.turns.stop(self.n_documents)


def loader(turns: Turns, work: Work) -> None:
    """An epoch of LMDataLoader over ids that are in memory as tensors; units are tokens."""
    batches = _lm_loaders(work).train
    sum(x.numel() for x, _ in batches)
    while True:
        turns.wait()
        turns.stop(sum(x.numel() for x, _ in batches))


def language_model(turns: Turns, work: Work) -> None:
    """Steps of language_model_learner, from scratch; units are tokens."""
    dls, sizes = _lm_loaders(work), work.sizes
    learn = language_model_learner(
        dls, AWD_LSTM, config=_sized(awd_lstm_lm_config, sizes.lstm), pretrained=False,
        metrics=[accuracy, Perplexity()], cbs=[_Steps(turns, sizes)],
    )
    with learn.no_bar():
        learn.fit_one_cycle(1, 2e-3)
    raise RuntimeError("the epoch ended before the last repeat")


def classifier(turns: Turns, work: Work) -> None:
    """Epochs of text_classifier_learner, all layers; units are documents."""
    store = IdStore.open(open_artifact(work.shared / "ids", "ids"))
    train, valid = (store.documents(split) for split in ("train", "valid"))
    learn = classifier_learner(store, train, valid, work.sizes)
    with learn.no_bar():
        learn.fit_one_cycle(work.sizes.repeats + 2, 1e-3, cbs=[_Epochs(turns, len(train))])


def classifier_learner(store: IdStore, train: Any, valid: Any, sizes: Sizes) -> TextLearner:
    """A learner on tokenized documents, built of what TextBlock and CategoryBlock are built of."""
    items = [
        ([store.vocabulary[i] for i in store.document(n)], store.labels[store.label_ids[n]]) for n in range(len(store))
    ]
    datasets = Datasets(
        items, [[ItemGetter(0), Numericalize(store.vocabulary)], [ItemGetter(1), Categorize()]],
        splits=[train.tolist(), valid.tolist()],
    )
    dls = datasets.dataloaders(bs=sizes.classifier_bs, dl_type=SortedDL, before_batch=Pad_Chunk(seq_len=72))
    return learner_on(dls, sizes.lstm)


def learner_on(dls: DataLoaders, lstm: tuple[int, int, int]) -> TextLearner:
    """text_classifier_learner with its defaults."""
    return text_classifier_learner(
        dls, AWD_LSTM, config=_sized(awd_lstm_clas_config, lstm), pretrained=False, metrics=accuracy
    )


def _lm_loaders(work: Work) -> DataLoaders:
    """Loaders over ids in memory: fastai's fastest way, since from a folder it reads each document in every epoch."""
    store, sizes = IdStore.open(open_artifact(work.shared / "ids", "ids")), work.sizes
    train, valid = (
        LMDataLoader(
            [(TensorText(torch.from_numpy(store.document(int(n)).astype(np.int64))),) for n in store.documents(split)],
            bs=bs, seq_len=sizes.lm_seq_len, shuffle=split == "train",
        )
        for split, bs in (("train", sizes.lm_bs), ("valid", 2))
    )
    dls = DataLoaders(train, valid)
    dls.vocab = store.vocabulary
    return dls


def _sized(config: dict[str, Any], lstm: tuple[int, int, int]) -> dict[str, Any]:
    """fastai's configuration; only in tests `lstm` has sizes other than its own."""
    return {**config, **dict(zip(("emb_sz", "n_hid", "n_layers"), lstm, strict=True))}
