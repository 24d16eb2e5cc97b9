"""Language models small enough to build hundreds of times, sealed in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_classifiers import WORDS

from pipeline import artifact as artifacts
from pipeline.artifact import Manifest
from pipeline.attempt import open_partial
from pipeline.model.architecture import Architecture
from pipeline.model.awd_lstm import build_language_model
from pipeline.model.weights import load_language_model, save_language_model
from pipeline.provenance import now
from pipeline.text.rules import SPECIAL_TOKENS
from pipeline.text.tokenizer import Tokenizer, save_tokenizer
from pipeline.text.vocabulary import write_vocabulary
from pipeline.text.word import WordTokenizer
from pipeline.training_settings import FinetuneLMSettings

VOCABULARY = (*SPECIAL_TOKENS, *(word for word in WORDS if word not in SPECIAL_TOKENS), "n't", "3")


def trained_language_model(architecture: Architecture, seed: int) -> Any:
    """A language model in eval mode that was trained, with dropout, for a few steps."""
    torch.manual_seed(seed)
    model = build_language_model(architecture, FinetuneLMSettings())
    model[0].encoder.weight.data.normal_(std=1.0)  # so that words make a difference
    model[1].decoder.bias.data.uniform_(-1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(6):
        ids = torch.randint(2, architecture.vocabulary_size, (4, 9))
        model.reset()
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1])[0].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def seal_language_model(
    folder: Path, *, direction: str = "fwd", tie_weights: bool = True, seed: int = 3,
    vocabulary: Sequence[str] = VOCABULARY, tokenizer: Tokenizer | None = None, broken: bool = False,
    bias: dict[str, float] | None = None,
) -> Path:
    """A sealed language model of WORDS; `bias` is added to the logits of the tokens it names."""
    architecture = Architecture(len(vocabulary), 8, 12, 2, tie_weights)
    work, _ = open_partial(folder, "f" * 64)
    model = trained_language_model(architecture, seed)
    with torch.no_grad():
        for token, value in (bias or {}).items():
            model[1].decoder.bias[list(vocabulary).index(token)] += value
        if broken:
            model[1].decoder.bias.fill_(torch.nan)
    save_language_model(model, work)
    architecture.save(work / "architecture.json")
    write_vocabulary(work, vocabulary)
    save_tokenizer(tokenizer or WordTokenizer(), work / "tokenizer")
    manifest: dict[str, Any] = {
        "slot": "lm", "stage": "finetune_lm", "code_version": 1, "settings": {}, "inputs": {},
        "fingerprint": artifacts.hash_json([direction, list(vocabulary), seed, bias]), "source": None,
        "identity": {"direction": direction}, "files": {}, "versions": {}, "git_commit": None, "git_dirty": None,
        "host": "test", "job_id": None, "device": None, "precision": None, "created": now(), "wall_s": 0.0,
        "peak_memory_mb": 0.0, "metrics": {},
    }
    artifacts.seal(folder, Manifest(**manifest))
    return folder


def fastai_model(folder: Path) -> Any:
    """fastai's own model with the weights of a sealed folder, in eval mode."""
    model = build_language_model(Architecture.load(folder / "architecture.json"))
    load_language_model(model, folder)
    return model.eval()
