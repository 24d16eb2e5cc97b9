"""The README says what the program does: its generated parts are current, its commands and settings exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.recipe import load_recipe, shipped_recipes
from pipeline.stage import STAGE_NAMES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"python -m pipeline ([^`\n#]*(?:\\\n[^\n#]*)?)", README)


def test_generated_parts_are_current() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "update_readme.py"), "--check"], capture_output=True, text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_it_is_short_enough_to_read() -> None:
    assert len(README.splitlines()) < 200


def test_its_commands_exist() -> None:
    names = {command.split()[0] for command in COMMANDS if command.strip()}
    others = {
        "evaluate_ensemble", "run", "status", "recipes", "report", "predict", "import-fastai", "find-lr", "export",
        "compare", "benchmark",
    }
    assert names - {"...", "STAGE"} <= {*others, *STAGE_NAMES}
    assert set(STAGE_NAMES) <= names


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--recipe" in c and "my.toml" not in c])
def test_its_recipes_and_settings_exist(command: str) -> None:
    words = command.replace("\\\n", " ").split()
    recipe = words[words.index("--recipe") + 1]
    assert recipe in shipped_recipes()
    load_recipe(recipe, [words[i + 1] for i, word in enumerate(words) if word == "--set"])


def test_its_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:`|^    )make ([a-z-]+)", README, re.MULTILINE)) <= set(targets)
