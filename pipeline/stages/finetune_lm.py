"""Stage finetune_lm: train the AWD_LSTM language model, from scratch or from an earlier sealed one.

Reads ids, and `start_lm` where the recipe names one: its architecture is then inherited, and its vocabulary and
tokenizer too, or its rows are matched to the vocabulary of the ids.
Writes encoder.safetensors, decoder.safetensors, architecture.json, vocabulary.json, tokenizer/ and the history.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fastai.text.models.awdlstm import awd_lstm_lm_split
from fastai.text.models.core import SequentialRNN
from numpy.typing import NDArray

from pipeline.artifact import Artifact
from pipeline.custody import has_other_corpora
from pipeline.errors import DataError
from pipeline.making import StageOutcome
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.decoder_loss import DecoderLoss
from pipeline.model.matching import load_matched, match_vocabulary, record
from pipeline.model.text_files import copy_text_files
from pipeline.model.weights import load_language_model, save_language_model
from pipeline.protocol import protocol_of
from pipeline.stage import StageContext
from pipeline.text.ids import IdStore
from pipeline.text.tokenizer import tokenizer_kind
from pipeline.training.curve import write_curve
from pipeline.training.device import Device, keep_freed_memory, resolve_device
from pipeline.training.group import Group
from pipeline.training.history import Record, write_history
from pipeline.training.loaders import LanguageModelLoader
from pipeline.training.metrics import TokenAccuracy, TokenLoss, bits_per_character, perplexity
from pipeline.training.phases import seed_weights, train_stage
from pipeline.training.task import Task
from pipeline.training_settings import FinetuneLMSettings


@dataclass(frozen=True)
class Prepared:
    """What is trained, where, and what the stage says of it."""

    task: Task
    device: Device
    group: Group
    architecture: Architecture
    valid_tokens: int
    """Tokens that are predicted in validation."""
    matched: dict[str, Any] | None
    """Which rows of an earlier language model were matched by token, if they were."""


def prepare(context: StageContext) -> Prepared:
    """The language model and its text, ready to be trained; nothing is written."""
    settings: FinetuneLMSettings = context.settings
    run_settings = context.recipe.run
    device = resolve_device(run_settings, context.ranks)
    group = Group(context.ranks, run_settings.rank_timeout_s)
    context.reporter.line(f"finetune_lm: {device.describe()}{group.describe()}")
    keep_freed_memory()
    ids, start = context.inputs["ids"], context.inputs.get("start_lm")
    store = IdStore.open(ids)
    train, valid = _loaders(context, store, group)

    seed_weights(run_settings.seed)
    matched: dict[str, Any] | None = None
    if start is None:
        architecture = Architecture.from_settings(settings, len(store.vocabulary))
        model = build_language_model(architecture, settings, logits=False)
    elif settings.vocabulary == "inherit":
        architecture = Architecture.load(start.file("architecture.json"))
        model = build_language_model(architecture, settings, logits=False)
        load_language_model(model, start.path)
        context.reporter.line(f"finetune_lm: weights, architecture and vocabulary inherited from {start.path}")
    else:
        model, architecture, matched = _matched(context, start, store)

    valid_documents = store.documents("valid")
    characters = int(store.n_chars[valid_documents].sum()) * valid.predicted_tokens / valid.n_tokens

    def summarize(figures: dict[str, float]) -> Record:
        loss = figures["token_loss"]
        return {
            "valid_loss": loss,
            "perplexity": perplexity(loss),
            "accuracy": figures["token_accuracy"],
            "bits_per_character": bits_per_character(loss, valid.predicted_tokens, characters),
        }

    task = Task(
        name="finetune_lm", model=model, splitter=awd_lstm_lm_split, loss=DecoderLoss(model[1].decoder),
        train=train, valid=valid, metrics=[TokenLoss(), TokenAccuracy()], unit="tokens", units=train.predicted_tokens,
        summarize=summarize, save=lambda folder: save_language_model(model, folder),
        load=lambda folder: load_language_model(model, folder),
        keep_best="valid_loss" if any(phase.patience for phase in settings.phases) else None,
    )
    return Prepared(task, device, group, architecture, valid.predicted_tokens, matched)


def run(context: StageContext) -> StageOutcome:
    """Train all phases and write the language model."""
    settings: FinetuneLMSettings = context.settings
    run_settings, ids, start = context.recipe.run, context.inputs["ids"], context.inputs.get("start_lm")
    prepared = prepare(context)
    task, device, architecture = prepared.task, prepared.device, prepared.architecture
    trained = train_stage(context, prepared)
    last = trained.history[-1]
    if trained.average is not None:
        sealed, weights = trained.average.record, str(trained.average)
    else:
        sealed = trained.best.record or last  # the best is known where a phase has patience
        weights = f"epoch {sealed['epoch']}"
        if sealed["epoch"] != last["epoch"]:
            task.load(trained.best.folder)
    task.save(context.work)
    architecture.save(context.work / "architecture.json")
    write_history(trained.history, context.work)
    write_curve(trained.curve, context.work)
    copy_text_files(ids.path, context.work)

    transductive = settings.transductive or bool(start and start.manifest.metrics["transductive"])
    return StageOutcome(
        metrics={
            **{key: sealed[key] for key in ("valid_loss", "perplexity", "accuracy", "bits_per_character")},
            "weights": weights,
            "epochs": len(trained.history),
            "train_tokens": task.units,
            "valid_tokens": prepared.valid_tokens,
            "tokens_per_s": last["tokens_per_s"],
            "parameters": sum(p.numel() for p in task.model.parameters()),
            "skipped_steps": trained.skipped_steps,
            "processes": prepared.group.size,
            "read": _training_splits(settings, IdStore.open(ids)),
            "transductive": transductive,
            "other_corpora": has_other_corpora(ids.manifest.identity.get("corpus"), [start] if start else []),
            "protocol": protocol_of({"transductive": transductive}),
            "started_from": start.manifest.fingerprint if start else None,
            "matched": prepared.matched,
        },
        identity={**ids.manifest.identity, "direction": run_settings.direction, "architecture": architecture.hash()},
        device=str(device.device),
        hardware=device.gpu,
        precision={"requested": device.requested, "effective": trained.precision},
    )


def _loaders(context: StageContext, store: IdStore, group: Group) -> tuple[LanguageModelLoader, LanguageModelLoader]:
    """Training and validation text. The test split is read only when the recipe says `transductive`."""
    settings: FinetuneLMSettings = context.settings
    valid_documents = store.documents("valid")
    valid_tokens = int((store.offsets[valid_documents + 1] - store.offsets[valid_documents]).sum())
    if valid_tokens < 2:
        raise DataError(
            "There is no validation text.",
            "Set prepare_corpus.valid_fraction above 0 with --force; if it is, there is too little text to split.",
        )
    backwards = context.recipe.run.direction == "bwd"
    train = LanguageModelLoader(
        store, _training_documents(settings, store), bs=settings.bs, seq_len=settings.seq_len,
        seed=context.recipe.run.seed, backwards=backwards, groups=settings.accumulate,
        random_lengths=settings.random_seq_len, part=group.part(settings.bs),
    )
    # A short validation text in fewer streams loses fewer tokens at its end.
    valid_bs = max(1, min(settings.bs, valid_tokens // settings.seq_len))
    valid = LanguageModelLoader(
        store, valid_documents, bs=valid_bs, seq_len=settings.seq_len, backwards=backwards, part=group.part(valid_bs)
    )
    return train, valid


def _training_documents(settings: FinetuneLMSettings, store: IdStore) -> NDArray[np.int64]:
    return store.documents(*_training_splits(settings, store))


def _training_splits(settings: FinetuneLMSettings, store: IdStore) -> list[str]:
    """Those whose text it is trained on, as far as there are documents of them."""
    wanted = {"train": True, "unlabelled": settings.unlabelled, "test": settings.transductive}
    return [split for split, is_wanted in wanted.items() if is_wanted and len(store.documents(split))]


def _matched(
    context: StageContext, start: Artifact, store: IdStore
) -> tuple[SequentialRNN, Architecture, dict[str, Any]]:
    """A model for the vocabulary of the ids with the weights of `start`, and how much of the vocabulary it knew."""
    old = Architecture.load(start.file("architecture.json"))
    architecture = replace(old, vocabulary_size=len(store.vocabulary))
    model = build_language_model(architecture, context.settings, logits=False)
    pieces = [tokenizer_kind(artifact.path / "tokenizer") for artifact in (start, context.inputs["ids"])]
    match = match_vocabulary(start.path, store.vocabulary, pieces=pieces == ["word", "subword"])
    load_matched(start.path, model, architecture, match)
    found = record(match, store.counts(_training_documents(context.settings, store)))
    context.reporter.line(f"finetune_lm: weights and architecture inherited from {start.path}, vocabulary of these ids")
    rows = ", ".join(f"{row['types']:,} {name}" for name, row in found["rows"].items())
    context.reporter.line(
        f"finetune_lm: {found['types']:.2%} of the vocabulary and {found['tokens']:.2%} of the training tokens matched "
        f"(rows: {rows})"
    )
    return model, architecture, found
