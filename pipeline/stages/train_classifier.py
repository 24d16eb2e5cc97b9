"""Stage train_classifier: a classifier on the encoder of a sealed language model, or of an earlier classifier.

Reads ids and lm, and `start_classifier` where the recipe names one; writes the epoch that validation liked best, or the
mean of the last epochs if it liked that more: encoder.safetensors, head.safetensors, architecture.json, head.json,
labels.json, vocabulary.json, tokenizer/ and the history.
"""

import json
import shutil
from dataclasses import dataclass

import numpy as np
from fastai.learner import Callback
from fastai.text.models.awdlstm import awd_lstm_clas_split
from fastai.text.models.core import SequentialRNN
from numpy.typing import NDArray

from pipeline.artifact import Artifact
from pipeline.custody import has_other_corpora
from pipeline.errors import DataError, UsageError
from pipeline.making import StageOutcome
from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.awd_lstm import build_classifier
from pipeline.model.text_files import copy_text_files
from pipeline.model.weights import (
    classifier_encoder,
    encoder_tensors,
    head_tensors,
    load_classifier,
    load_tensors,
    save_classifier,
)
from pipeline.protocol import protocol_of
from pipeline.stage import StageContext
from pipeline.text.ids import IdStore
from pipeline.text.labelled import labelled_documents
from pipeline.training.adversarial import AdversarialLoss, VirtualAdversarialLoss
from pipeline.training.auxiliary_loss import load_loss
from pipeline.training.class_weights import cross_entropy, weight_of
from pipeline.training.curve import write_curve
from pipeline.training.device import Device, keep_freed_memory, resolve_device
from pipeline.training.group import Group
from pipeline.training.history import write_history
from pipeline.training.loaders import ClassifierLoader
from pipeline.training.metrics import CLASSIFIER_METRICS, classifier_figures
from pipeline.training.phases import seed_weights, train_stage
from pipeline.training.sharing import rows_of_rank
from pipeline.training.task import Task
from pipeline.training_settings import TrainClassifierSettings


@dataclass(frozen=True)
class Prepared:
    """What is trained, where, and what the stage says of it."""

    task: Task
    device: Device
    group: Group
    architecture: Architecture
    head: HeadShape
    labels: list[str]
    valid_documents: int


def prepare(context: StageContext) -> Prepared:
    """The classifier and its documents, ready to be trained; nothing is written."""
    settings: TrainClassifierSettings = context.settings
    run_settings = context.recipe.run
    device = resolve_device(run_settings, context.ranks)
    group = Group(context.ranks, run_settings.rank_timeout_s)
    context.reporter.line(f"train_classifier: {device.describe()}{group.describe()}")
    for name in ("lm_loss_weight", "adversarial", "virtual_adversarial"):
        if getattr(settings, name) and group.size > 1:
            raise UsageError(
                f"train_classifier.{name} is for one process, and there are {group.size}.",
                "Set it to 0, or start the stage without torchrun.",
            )
    keep_freed_memory()
    ids, lm = context.inputs["ids"], context.inputs["lm"]
    store = IdStore.open(ids)
    published = settings.validate_on == "test"
    documents = {
        "train": _labelled(store, settings, run_settings.seed, "train", *(["valid"] if published else [])),
        "valid": _labelled(store, settings, run_settings.seed, settings.validate_on),
    }
    context.reporter.line(
        f"train_classifier: {len(documents['train']):,} documents; {len(documents['valid']):,} of "
        f"{settings.validate_on} choose the epoch{': the published protocol' if published else ''}"
    )
    counts = np.bincount(store.label_ids[documents["train"]], minlength=len(store.labels))

    architecture, head, model = _model(context, store.labels)
    _check_adversarial(settings, len(awd_lstm_clas_split(model)))

    backwards = run_settings.direction == "bwd"
    train, valid = (
        ClassifierLoader(
            store, documents[split], store.label_ids, bs=settings.bs, seq_len=settings.seq_len, seed=seed,
            backwards=backwards, part=rows_of_rank(group),
        )
        for split, seed in (("train", run_settings.seed), ("valid", None))
    )

    callbacks: list[Callback] = []
    if settings.adversarial:
        regularized = bool(settings.alpha or settings.beta or settings.lm_loss_weight)
        callbacks.append(AdversarialLoss(settings.adversarial, regularized=regularized))
    if settings.virtual_adversarial:
        texts = ClassifierLoader(
            store, store.documents("train", "unlabelled"), store.label_ids,
            bs=settings.bs, seq_len=settings.seq_len, seed=run_settings.seed, backwards=backwards,
        )
        callbacks.append(VirtualAdversarialLoss(settings.virtual_adversarial, texts))
    if settings.lm_loss_weight:
        callbacks.append(load_loss(settings.lm_loss_weight, lm, architecture, device.device))
    loss = cross_entropy(settings.class_weights, counts, device.device, label_smoothing=settings.label_smoothing)
    task = Task(
        name="train_classifier", model=model, splitter=awd_lstm_clas_split, loss=loss,
        train=train, valid=valid, metrics=CLASSIFIER_METRICS, unit="documents", units=len(documents["train"]),
        summarize=classifier_figures, save=lambda folder: save_classifier(model, folder),
        load=lambda folder: load_classifier(model, folder), keep_best="accuracy", weigh=weight_of(loss),
        callbacks=callbacks, pools=True,
    )
    return Prepared(task, device, group, architecture, head, store.labels, len(documents["valid"]))


def run(context: StageContext) -> StageOutcome:
    """Train all phases and write the best epoch."""
    settings: TrainClassifierSettings = context.settings
    ids, lm = context.inputs["ids"], context.inputs["lm"]
    prepared = prepare(context)
    task, device = prepared.task, prepared.device
    trained = train_stage(context, prepared)
    chosen = trained.best.record
    assert chosen is not None  # every epoch was offered
    weights, average = f"epoch {chosen['epoch']}", trained.average
    if average is not None and task.is_better(average.record, chosen):
        weights, chosen = str(average), {**average.record, "epoch": chosen["epoch"]}
        task.save(context.work)
    else:
        for name in ("encoder.safetensors", "head.safetensors"):
            shutil.copy2(trained.best.folder / name, context.work / name)
    prepared.architecture.save(context.work / "architecture.json")
    prepared.head.save(context.work / "head.json")
    (context.work / "labels.json").write_text(
        json.dumps(prepared.labels, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    write_history(trained.history, context.work)
    write_curve(trained.curve, context.work)
    copy_text_files(ids.path, context.work)
    models = [model for model in (lm, context.inputs.get("start_classifier")) if model is not None]
    before = [model.manifest.metrics for model in models]
    used = {
        "transductive": any(metrics.get("transductive") for metrics in before),
        "validated_on": "test" if any(metrics.get("validated_on") == "test" for metrics in before)
        else settings.validate_on,
        "other_corpora": has_other_corpora(ids.manifest.identity.get("corpus"), models),
    }
    return StageOutcome(
        metrics={
            "accuracy": chosen["accuracy"],
            "valid_loss": chosen["valid_loss"],
            "weights": weights,
            "average": average and average.record,
            "best_epoch": chosen["epoch"],
            "epochs": len(trained.history),
            "labelled": settings.labelled,
            "encoder": settings.encoder,
            "language_model_read": _text_read(ids, models) if settings.encoder == "pretrained" else [],
            "train_documents": task.units,
            "valid_documents": prepared.valid_documents,
            "documents_per_s": trained.history[-1]["documents_per_s"],
            "parameters": sum(p.numel() for p in task.model.parameters()),
            "skipped_steps": trained.skipped_steps,
            "processes": prepared.group.size,
            **used,
            "protocol": protocol_of(used),
        },
        identity={
            **lm.manifest.identity, **ids.manifest.identity, "architecture": prepared.architecture.hash(),
        },
        device=str(device.device),
        hardware=device.gpu,
        precision={"requested": device.requested, "effective": trained.precision},
    )


def _text_read(ids: Artifact, models: list[Artifact]) -> list[str] | None:
    """The splits whose text the language model was trained on; None if it does not say, or came from elsewhere."""
    lm = models[0].manifest
    same = len(models) == 1 and lm.identity.get("corpus") == ids.manifest.identity.get("corpus")
    return lm.metrics.get("read") if same else None


def _check_adversarial(settings: TrainClassifierSettings, groups: int) -> None:
    """UsageError if embeddings are to be moved, and no phase trains them: the first of the `groups` of layers."""
    for name in ("adversarial", "virtual_adversarial"):
        if getattr(settings, name) and all(p.train_last and p.train_last < groups for p in settings.phases):
            raise UsageError(
                f"train_classifier.{name} moves embeddings, in phases that train them, and none of the phases does.",
                f"Leave train_last out of a phase, or set train_classifier.{name} to 0.",
            )


def _model(context: StageContext, labels: list[str]) -> tuple[Architecture, HeadShape, SequentialRNN]:
    """The classifier with the weights that it starts from."""
    settings: TrainClassifierSettings = context.settings
    earlier = context.inputs.get("start_classifier")
    start = earlier or context.inputs["lm"]
    seed_weights(context.recipe.run.seed)
    architecture = Architecture.load(start.file("architecture.json"))
    head = HeadShape.from_settings(settings, len(labels))
    model = build_classifier(architecture, head, settings)
    if settings.encoder == "pretrained":
        load_tensors(encoder_tensors(classifier_encoder(model)), start.file("encoder.safetensors"))
    if earlier is not None:
        theirs = json.loads(earlier.file("labels.json").read_text(encoding="utf-8"))
        fits = theirs == labels and HeadShape.load(earlier.file("head.json")).lin_ftrs == head.lin_ftrs
        if fits:
            load_tensors(head_tensors(model), earlier.file("head.safetensors"))
        context.reporter.line(
            f"train_classifier: encoder {'and head' if fits else 'alone'} from {earlier.path}"
            f"{'' if fits else ', whose head has other labels or sizes'}"
        )
    return architecture, head, model


def _labelled(store: IdStore, settings: TrainClassifierSettings, seed: int, *splits: str) -> NDArray[np.int64]:
    """Documents of `splits` that have a label; DataError if there are too few to train or to choose."""
    documents = labelled_documents(store, splits, settings.labelled, seed)
    if "train" in splits and len(store.labels) < 2:
        found = f"only {store.labels[0]!r}" if store.labels else "none"
        raise DataError(f"A classifier needs two labels, the training documents have {found}.", "Correct the corpus.")
    missing = np.setdiff1d(np.arange(len(store.labels)), store.label_ids[documents])
    if "train" in splits and settings.labelled and len(missing):
        raise DataError(
            f"train_classifier.labelled is {settings.labelled}: too few to train on each of the {len(store.labels)} "
            f"labels; {store.labels[missing[0]]!r} has none.",
            f"Set it to {4 * len(store.labels)} or more.",
        )
    if len(documents) < 2:
        raise DataError(
            f"The {splits[0]} split has {len(documents)} labelled documents.",
            f"Label more documents, or change prepare_corpus.{'test' if 'test' in splits else 'valid'}_fraction, with "
            "--force.",
        )
    return documents
