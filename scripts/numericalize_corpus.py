"""The stage numericalize_corpus: `python -m pipeline numericalize_corpus` without installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.cli import main

if __name__ == "__main__":
    main("numericalize_corpus")
