"""The stage evaluate_ensemble: `python -m pipeline evaluate_ensemble` without installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.cli import main

if __name__ == "__main__":
    main("evaluate_ensemble")
