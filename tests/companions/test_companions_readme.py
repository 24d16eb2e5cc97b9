"""The commands that the README of the companions prints are understood."""

import importlib
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "companions"
COMMANDS = re.findall(r"^    python scripts/companions/(\w+)\.py(.*?)(?:  +.*)?$", (FOLDER / "README.md").read_text(
    encoding="utf-8"), re.MULTILINE)


def test_every_companion_is_there() -> None:
    assert {name for name, _ in COMMANDS} == {
        "gradient_descent", "pooling_cnn", "read_embeddings", "transfer_learning",
    }


@pytest.mark.parametrize(("name", "options"), COMMANDS)
def test_its_options_exist(name: str, options: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        importlib.import_module(name).main(["--help"])
    assert end.value.code == 0
    known = capsys.readouterr().out
    assert all(option in known for option in re.findall(r"--[a-z-]+", options))
