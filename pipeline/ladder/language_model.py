"""Training of the language-model rungs: the loop, checkpoints and figures of `finetune_lm` around another model."""

import shutil
from pathlib import Path
from typing import Any

from fastcore.foundation import L
from torch import nn

from pipeline.artifact import Artifact
from pipeline.errors import DivergedError
from pipeline.ladder.recurrent import build
from pipeline.ladder.rungs import LanguageModelSettings, Rung
from pipeline.ladder.windows import loaders
from pipeline.making import StageOutcome
from pipeline.model.decoder_loss import DecoderLoss
from pipeline.model.text_files import copy_text_files
from pipeline.model.weights import load_tensors, save_tensors
from pipeline.progress import Reporter
from pipeline.text.ids import IdStore
from pipeline.training.curve import write_curve
from pipeline.training.device import Device
from pipeline.training.history import Record, write_history
from pipeline.training.metrics import TokenAccuracy, TokenLoss, bits_per_character, perplexity
from pipeline.training.phases import seed_weights, train_phases
from pipeline.training.task import Task

WEIGHTS = "weights.safetensors"
FIGURES = ("valid_loss", "perplexity", "accuracy", "bits_per_character")


def train(
    rung: Rung, ids: Artifact, *, seed: int, device: Device, work: Path, resume: Path, fingerprint: str,
    reporter: Reporter,
) -> StageOutcome:
    """Train `rung` on the ids and write its best epoch's weights, vocabulary, tokenizer, history and curve into `work`.

    Goes on from the checkpoints in `resume`. Raises Stopped, and DivergedError if the loss is no number any more.
    """
    settings = rung.settings
    assert isinstance(settings, LanguageModelSettings), rung.name
    task = task_of(rung, IdStore.open(ids), seed)
    try:
        trained = train_phases(
            task, settings, settings.phases, device=device, seed=seed, resume=resume, fingerprint=fingerprint,
            reporter=reporter,
        )
    except DivergedError as error:
        raise DivergedError(error.what, "Leave the rung out: name the others with --rungs.") from error
    best = trained.best.record
    assert best is not None  # every epoch was offered
    shutil.copy2(trained.best.folder / WEIGHTS, work / WEIGHTS)
    write_history(trained.history, work)
    write_curve(trained.curve, work)
    copy_text_files(ids.path, work)
    return StageOutcome(
        metrics={
            **{key: best[key] for key in FIGURES},
            "best_epoch": best["epoch"],
            "parameters": sum(p.numel() for p in task.model.parameters()),
            "train_s": round(sum(record["train_s"] for record in trained.history), 3),
            "tokens_per_s": trained.history[-1]["tokens_per_s"],
            "epochs": len(trained.history),
            "train_tokens": task.units,
        },
        identity=dict(ids.manifest.identity),
        device=str(device.device),
        precision={"requested": device.requested, "effective": trained.precision},
    )


def task_of(rung: Rung, store: IdStore, seed: int) -> Task:
    """The model of `rung` and its text, ready to be trained; DataError if there is too little text."""
    settings = rung.settings
    assert isinstance(settings, LanguageModelSettings), rung.name
    seed_weights(seed)
    model = build(rung.name, len(store.vocabulary), settings)
    train, valid = loaders(store, settings, seed)
    characters = characters_per_token(store)

    def summarize(figures: dict[str, float]) -> Record:
        loss = figures["token_loss"]
        return {
            "valid_loss": loss,
            "perplexity": perplexity(loss),
            "accuracy": figures["token_accuracy"],
            "bits_per_character": bits_per_character(loss, 1, characters),
        }

    return Task(
        name=rung.name, model=model, splitter=one_group, loss=DecoderLoss(model[1].decoder), train=train, valid=valid,
        metrics=[TokenLoss(), TokenAccuracy()], unit="tokens", units=train.predicted_tokens, summarize=summarize,
        save=lambda folder: save_tensors(weights(model), folder / WEIGHTS),
        load=lambda folder: load_tensors(weights(model), folder / WEIGHTS), keep_best=True,
    )


def characters_per_token(store: IdStore) -> float:
    """Characters of the validation documents for each of their tokens."""
    valid = store.documents("valid")
    return float(store.n_chars[valid].sum() / store.n_tokens[valid].sum())


def weights(model: nn.Module) -> dict[str, Any]:
    """Every tensor that training changes, by name; tied ones once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def one_group(model: nn.Module) -> L:
    """All layers learn at one rate."""
    return L(L(model.parameters()))
