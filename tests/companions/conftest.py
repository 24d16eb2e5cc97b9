"""Puts `scripts/companions` on the path: the companions are no part of the installed package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "companions"))
