"""Plain fastai's side of the inference cases: get_preds and predict of a learner."""

import time

import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, RandomSplitter
from fastai.text.data import TextBlock

from pipeline.artifact import open_artifact
from pipeline.benchmark.model_data import LABELS
from pipeline.benchmark.single import single_reviews
from pipeline.benchmark.training_fastai import classifier_learner, learner_on
from pipeline.benchmark.turns import Turns, Work
from pipeline.text.ids import IdStore


def batches(turns: Turns, work: Work) -> None:
    """Tokens to probabilities; units are documents."""
    store = IdStore.open(open_artifact(work.shared / "ids-to-predict", "ids"))
    wanted, others = (store.documents(split) for split in ("train", "valid"))
    learn = classifier_learner(store, others, wanted, work.sizes)
    with learn.no_bar():
        learn.get_preds()
        while True:
            turns.wait()
            probabilities, _ = learn.get_preds()
            turns.stop(len(probabilities))


def one(turns: Turns, work: Work) -> None:
    """Texts to classes and probabilities, one at a time; units are texts."""
    if work.parameters["one_core"]:
        torch.set_num_threads(1)
    model, texts = work.parameters["model"], single_reviews(work)
    store = IdStore.open(open_artifact(work.shared / "ids", "ids"))
    table = pd.DataFrame({"text": texts * 4, "label": (LABELS * len(texts) * 4)[: len(texts) * 4]})
    block = DataBlock(
        blocks=(TextBlock.from_df("text", vocab=store.vocabulary), CategoryBlock), get_x=ColReader("text"),
        get_y=ColReader("label"), splitter=RandomSplitter(),
    )
    sizes = work.sizes
    learn = learner_on(block.dataloaders(table, bs=2), sizes.lstm if model == "classifier" else sizes.small_lstm)
    with learn.no_bar():
        learn.predict(texts[0])
        while True:
            turns.wait()
            seconds = []
            for text in texts:
                started = time.perf_counter()
                learn.predict(text)
                seconds.append(time.perf_counter() - started)
            turns.stop(len(texts), seconds)
