"""Hashes that tie ids, language models and classifiers together, and the refusal when they do not agree."""

import shutil
from pathlib import Path

from pipeline.artifact import Artifact
from pipeline.errors import InputError

_MEND = {
    "vocabulary": "Use ids made with that vocabulary: name the language model as inputs.start_lm and renumber in a new "
    "--run, or train a language model on these ids.",
    "tokenizer": "Tokenize with the language model's own tokenizer: name it as inputs.start_lm in a new --run.",
    "direction": "Set run.direction to that of the language model.",
}


def require_same(artifact: Artifact, other: Artifact, *keys: str) -> None:
    """InputError if the two differ in one of `keys` (vocabulary, tokenizer); names both sides and the mend."""
    for key in keys:
        mine, theirs = artifact.manifest.identity.get(key), other.manifest.identity.get(key)
        if mine != theirs:
            raise InputError(
                f"The {key} of {artifact.path} ({_short(mine)}) is not that of {other.path} ({_short(theirs)}).",
                _MEND[key],
            )


def require_direction(artifact: Artifact, direction: str) -> None:
    """InputError if `artifact` reads in another direction than the run."""
    found = artifact.manifest.identity.get("direction")
    if found != direction:
        raise InputError(f"{artifact.path} reads {found}, this run reads {direction}.", _MEND["direction"])


def _short(value: str | None) -> str:
    return value[:12] if value else "none"


def copy_text_files(source: Path, target: Path) -> None:
    """Copy vocabulary and tokenizer, so that an artifact can be used without its ancestors."""
    shutil.copy2(source / "vocabulary.json", target / "vocabulary.json")
    shutil.copytree(source / "tokenizer", target / "tokenizer", dirs_exist_ok=True)
