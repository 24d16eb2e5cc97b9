"""Puts `scripts/` on the path: the fault harness is development code, and no part of the installed package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
