"""This pipeline's side of the inference cases: a sealed classifier, used as the predict command uses it."""

import time

import torch

from pipeline.artifact import open_artifact
from pipeline.benchmark.single import single_reviews
from pipeline.benchmark.turns import Turns, Work
from pipeline.inference.bundle import ClassifierBundle, load_classifier_bundle
from pipeline.settings import PredictionSettings, RunSettings
from pipeline.text.ids import IdStore
from pipeline.training.device import keep_freed_memory


def batches(turns: Turns, work: Work) -> None:
    """Ids to probabilities; units are documents."""
    bundle = _bundle(work, "classifier")
    store = IdStore.open(open_artifact(work.shared / "ids-to-predict", "ids"))
    documents = [store.document(int(n)) for n in store.documents("train")]
    bundle.probabilities(documents, bs=work.sizes.classifier_bs)
    while True:
        turns.wait()
        turns.stop(len(bundle.probabilities(documents, bs=work.sizes.classifier_bs)))


def one(turns: Turns, work: Work) -> None:
    """Texts to probabilities, one at a time; units are texts."""
    if work.parameters["one_core"]:
        torch.set_num_threads(1)
    run = PredictionSettings(precision="int8")
    bundle, texts = _bundle(work, work.parameters["model"], run), single_reviews(work)
    bundle.predict(texts[:1])
    while True:
        turns.wait()
        seconds = []
        for text in texts:
            started = time.perf_counter()
            bundle.predict([text])
            seconds.append(time.perf_counter() - started)
        turns.stop(len(texts), seconds)


def _bundle(work: Work, model: str, run: RunSettings | None = None) -> ClassifierBundle:
    keep_freed_memory()
    return load_classifier_bundle(work.shared / model, run)
