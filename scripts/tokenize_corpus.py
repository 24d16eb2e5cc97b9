"""The stage tokenize_corpus: `python -m pipeline tokenize_corpus` without installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from pipeline.cli import main  # not above: worker processes import this file too, and need nothing of it

    main("tokenize_corpus")
