"""Training of the language-model rungs: the loop, checkpoints and figures of `finetune_lm` around another model."""

from pathlib import Path

from pipeline.artifact import Artifact
from pipeline.ladder.fitting import WEIGHTS, best_of, fit, one_group, outcome, weights
from pipeline.ladder.recurrent import build
from pipeline.ladder.rungs import LanguageModelSettings, Rung
from pipeline.ladder.windows import loaders
from pipeline.making import StageOutcome
from pipeline.model.decoder_loss import DecoderLoss
from pipeline.model.weights import load_tensors, save_tensors
from pipeline.progress import Reporter
from pipeline.text.ids import IdStore
from pipeline.training.device import Device
from pipeline.training.history import Record
from pipeline.training.metrics import TokenAccuracy, TokenLoss, bits_per_character, perplexity
from pipeline.training.phases import seed_weights
from pipeline.training.task import Task

FIGURES = ("valid_loss", "perplexity", "accuracy", "bits_per_character")


def train(
    rung: Rung, ids: Artifact, *, seed: int, device: Device, work: Path, resume: Path, fingerprint: str,
    reporter: Reporter,
) -> StageOutcome:
    """Train `rung` on the ids, as `fitting.fit` does it."""
    settings = rung.settings
    assert isinstance(settings, LanguageModelSettings), rung.name
    task = task_of(rung, IdStore.open(ids), seed)
    trained = fit(
        task, settings, ids, seed=seed, device=device, work=work, resume=resume, fingerprint=fingerprint,
        reporter=reporter,
    )
    best = best_of(trained)
    return outcome(task, trained, ids, device, {
        **{key: best[key] for key in FIGURES},
        "tokens_per_s": trained.history[-1]["tokens_per_s"],
        "train_tokens": task.units,
    })


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
        load=lambda folder: load_tensors(weights(model), folder / WEIGHTS), keep_best="accuracy",
    )


def characters_per_token(store: IdStore) -> float:
    """Characters of the validation documents for each of their tokens."""
    valid = store.documents("valid")
    return float(store.n_chars[valid].sum() / store.n_tokens[valid].sum())
