"""What a model folder carries beside its weights, so that it can be used without its ancestors."""

import shutil
from pathlib import Path


def copy_text_files(source: Path, target: Path) -> None:
    """Copy vocabulary and tokenizer from one artifact folder to another."""
    shutil.copy2(source / "vocabulary.json", target / "vocabulary.json")
    shutil.copytree(source / "tokenizer", target / "tokenizer", dirs_exist_ok=True)
