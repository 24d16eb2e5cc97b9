"""Measure what pieces gain by starting from the words of a language model, against starting from its mean row.

    OMP_NUM_THREADS=1 python scripts/measure_piece_start.py --source aclImdb_v1.tar.gz

A small word model is trained by the pipeline on one draw of IMDB reviews. A subword model of another draw then starts
from it in each way and trains for some steps; the last lines are its validation loss per piece, for each seed. About
ten minutes on one core.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from fastai.text.models.awdlstm import awd_lstm_lm_split

from pipeline.artifact import open_artifact
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.decoder_loss import DecoderLoss
from pipeline.model.matching import Match, load_matched, match_pieces, match_tokens
from pipeline.model.weights import load_language_model, save_language_model
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.settings import RunSettings
from pipeline.stage import Run, run_stages, select
from pipeline.text.ids import IdStore
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.vocabulary import read_vocabulary
from pipeline.training.device import keep_freed_memory, resolve_device
from pipeline.training.loaders import LanguageModelLoader
from pipeline.training.metrics import TokenAccuracy, TokenLoss
from pipeline.training.phases import seed_weights, train_phases
from pipeline.training.task import Task

SIZES = {"emb_sz": 64, "n_hid": 128, "n_layers": 2, "drop_mult": 0.3, "bs": 16, "seq_len": 32, "log_every": 200}
LR, WORDS_EPOCHS = 5e-3, 2
Start = Callable[[Sequence[str], Sequence[str]], Match]


def mean_only(old: Sequence[str], new: Sequence[str]) -> Match:
    """Every piece starts from the mean row; special tokens from their own."""
    match = match_tokens(old, new)
    special = np.isin(new, SPECIAL_TOKENS)
    return replace(match, same=np.where(special, match.same, -1))


STARTS: dict[str, Start] = {
    "the mean row only": mean_only,
    "equal strings, as in fastai": match_tokens,
    "words spelled, begun, ended": match_pieces,
}


def made(name: str, until: str, home: Path, settings: dict[str, dict[str, object]]) -> Run:
    """A run with these settings, as far as the stage `until`."""
    recipe = Recipe.model_validate({
        "finetune_lm": SIZES | {"phases": [{"name": "all", "lr": LR, "epochs": WORDS_EPOCHS}]}, **settings,
    })
    run = Run(name, recipe, home)
    run_stages(run, select(None, until), Reporter())
    return run


def loss_after(steps: int, start: Start, seed: int, words: Run, store: IdStore) -> float:
    """Validation loss per piece after `steps` steps from `start`."""
    folder, settings = words.path("lm"), words.recipe.finetune_lm
    architecture = replace(
        Architecture.load(folder / "architecture.json"), vocabulary_size=len(store.vocabulary)
    )
    seed_weights(seed)
    model = build_language_model(architecture, settings, logits=False)
    load_matched(folder, model, architecture, start(read_vocabulary(folder), store.vocabulary))
    documents = store.documents("train", "unlabelled")
    enough = np.searchsorted(np.cumsum(store.n_tokens[documents]), steps * settings.bs * settings.seq_len)
    train = LanguageModelLoader(store, documents[:enough], bs=settings.bs, seq_len=settings.seq_len, seed=seed)
    assert len(train) == steps, f"the reviews give {len(train)} steps; raise --documents"
    valid = LanguageModelLoader(store, store.documents("valid"), bs=settings.bs, seq_len=settings.seq_len)
    task = Task(
        name="pieces", model=model, splitter=awd_lstm_lm_split, loss=DecoderLoss(model[1].decoder), train=train,
        valid=valid, metrics=[TokenLoss(), TokenAccuracy()], unit="tokens", units=train.predicted_tokens,
        summarize=lambda figures: {"valid_loss": figures["token_loss"]},
        save=lambda to: save_language_model(model, to), load=lambda of: load_language_model(model, of),
    )
    phase = settings.phases[0].model_copy(update={"epochs": 1})
    with tempfile.TemporaryDirectory() as resume:
        trained = train_phases(
            task, settings, [phase], device=resolve_device(RunSettings(device="cpu", precision="fp32")), seed=seed,
            resume=Path(resume), fingerprint="0", reporter=Reporter(),
        )
    return float(trained.history[-1]["valid_loss"])


def main() -> None:
    """Make both runs, then train from each start with each seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", required=True, help="the IMDB archive")
    parser.add_argument("--home", type=Path, help="where the runs go; kept for the next time; default: a temporary one")
    parser.add_argument("--documents", type=int, default=1000, help="reviews of each split, half for the pieces (1000)")
    parser.add_argument("--steps", type=int, default=200, help="of training from each start (200)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pieces", type=int, default=2000, help="size of the subword vocabulary (2000)")
    arguments = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.home or Path(temporary)
        words = made("words", "finetune_lm", home, {
            "run": {"seed": 42, "device": "cpu", "precision": "fp32"},
            "prepare_corpus": {"kind": "imdb", "source": arguments.source, "limit_per_split": arguments.documents},
            "numericalize_corpus": {"max_vocab": 8000},
        })
        pieces = made("pieces", "numericalize_corpus", home, {
            "run": {"seed": 7},
            "prepare_corpus": {"kind": "imdb", "source": arguments.source, "limit_per_split": arguments.documents // 2},
            "tokenize_corpus": {"tokenizer": "subword", "vocab_size": arguments.pieces},
            "numericalize_corpus": {"min_freq": 1},
        })
        store = IdStore.open(open_artifact(pieces.path("ids"), "ids"))
        old = read_vocabulary(words.path("lm"))
        counts = store.counts(store.documents("train", "unlabelled"))
        results = []
        for name, start in STARTS.items():
            match = start(old, store.vocabulary)
            losses = [loss_after(arguments.steps, start, seed, words, store) for seed in arguments.seeds]
            shown = " ".join(f"{loss:.4f}" for loss in losses)
            shares = ", ".join(f"{key} {share:.1%}" for key, share in match.shares(counts).items())
            results.append(f"{name:<28}{shown}  mean {mean(losses):.4f}  (training tokens: {shares})")
    print(f"validation loss after {arguments.steps} steps, seeds {arguments.seeds}", *results, sep="\n")


if __name__ == "__main__":
    main()
