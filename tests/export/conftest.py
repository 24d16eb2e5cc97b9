"""Everything here exports small classifiers, and pushes to the Hub of the end-to-end tests."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("inference", "end_to_end")]
