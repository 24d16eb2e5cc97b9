"""The pages in docs: what they tell to type exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMMANDS = [
    (page.name, command.replace("\\\n", " "))
    for page in PAGES
    for command in re.findall(r"python -m pipeline (run [^`\n#]*(?:\\\n[^\n#]*)*)", page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_recipes_and_settings_exist(page: str, command: str) -> None:
    words = command.split()
    load_recipe(words[words.index("--recipe") + 1], [words[i + 1] for i, word in enumerate(words) if word == "--set"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_named_in_passing_exist(page: Path) -> None:
    for setting in re.findall(r"`(?:--set )?([a-z_]+\.[a-z_]+=[^`\s]+)[^`]*`", page.read_text(encoding="utf-8")):
        load_recipe("pretrain", [setting])


def test_there_are_pages_with_commands() -> None:
    assert {page for page, _ in COMMANDS} >= {"pretrain.md"}


def test_the_page_of_results_says_what_was_recorded() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/update_results.py"), "--check"], capture_output=True, text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
