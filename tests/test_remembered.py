"""Runs named by --run alone: their paths mean the same from any folder."""

import json
import shlex
from pathlib import Path

import pytest
from tiny_stages import TinyStages
from typer.testing import CliRunner

from pipeline.cli import PROGRAM, app
from pipeline.remembered import Remembered, last_of

TABLE = """
[prepare_corpus]
kind = "table"
"""


@pytest.fixture(autouse=True)
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyStages:
    """A folder `project` with a recipe and a table, and the home `home` beside it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    Path("my.toml").write_text(TABLE, encoding="utf-8")
    Path("a.csv").write_text("text,label\na,b\n", encoding="utf-8")
    return TinyStages.in_place(monkeypatch)


def good(*args: str) -> str:
    result = CliRunner().invoke(app, list(args), prog_name=PROGRAM)
    assert result.exit_code == 0, result.output
    return result.stdout


def written(home: Path, run: str) -> dict[str, object]:
    return json.loads((home / "data" / run / "run.json").read_text(encoding="utf-8"))


def states(*args: str) -> set[str]:
    return {stage["state"] for stage in json.loads(good("status", "--json", *args))["stages"]}


def test_a_run_is_the_same_from_another_folder(
    stages: TinyStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--recipe", "my.toml", "--run", "a", "--home", "../home")
    good("run", *asked, "--source", "a.csv")
    for run, setting in (("b", "prepare_corpus.source=a.csv"), ("c", "prepare_corpus.source='a.csv'")):
        good("run", "--recipe", "my.toml", "--run", run, "--home", "../home", "--set", setting)
        assert written(Path("../home"), run)["set"] == [f"prepare_corpus.source={Path.cwd() / 'a.csv'}"]
    stages.calls.clear()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for run in ("a", "b", "c"):
        assert states("--run", run, "--home", "../home") == {"sealed"}
        good("run", "--run", run, "--home", "../home")
        assert stages.ran == []
    last = good("status", "--run", "a", "--home", "../home", "--set", "train_classifier.wd=0.5").splitlines()[-1]
    good(*shlex.split(last)[4:])
    assert stages.ran == ["train_classifier", "evaluate_classifier"]
    Path("../project/a.csv").unlink()
    assert states("--run", "a", "--home", "../home") == {"sealed"}  # what is sealed needs its source no more


def test_what_lies_below_the_home_moves_with_it(
    stages: TinyStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good("run", "--recipe", "my.toml", "--source", "a.csv")
    good("run", "--recipe", "my.toml", "--run", "next", "--set", "inputs.ids=data/my/ids", "--set",
         f"inputs.corpus='{Path('data/my/corpus').absolute()}'", "--until", "finetune_lm")
    assert written(Path(), "my") == {
        "recipe": "my.toml", "set": [], "variant": None, "source": "a.csv", "protocol": "honest"
    }
    assert written(Path(), "next")["set"] == ["inputs.ids=data/my/ids", "inputs.corpus=data/my/corpus"]
    (tmp_path / "project").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    stages.calls.clear()
    for run in ("my", "next"):
        good("run", "--run", run, "--home", "../moved", "--until", "finetune_lm")
        assert stages.ran == []
    assert "--recipe ../moved/my.toml" in good("status", "--run", "next", "--home", "../moved")


@pytest.mark.parametrize("setting", [
    "inputs.start_lm=reviews-small", "inputs.start_lm=not/there", "inputs.start_lm=none", "run.seed=7",
    "prepare_corpus.source=none", "inputs.start_lm=7", "odd",
])
def test_names_and_what_is_not_there_stay_as_they_are(setting: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    record = Remembered(recipe="sample", set=[setting], variant=None, source=None)
    record.write(home, "x")
    assert last_of(home, "x") == record


def test_a_folder_is_told_from_the_name_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("reviews-small").mkdir()
    Remembered(recipe="sample", set=["inputs.lm=reviews-small"], variant=None, source=None).write(Path(), "x")
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = last_of(Path("../project"), "x")
    assert found is not None
    assert found.set == [f"inputs.lm={tmp_path / 'project' / 'reviews-small'}"]


def test_paths_of_earlier_versions_are_from_the_folder_of_the_command(tmp_path: Path) -> None:
    record = {"recipe": "my.toml", "set": ["inputs.ids=data/x/ids"], "variant": None, "source": "a.csv"}
    (tmp_path / "home/data/x").mkdir(parents=True)
    (tmp_path / "home/data/x/run.json").write_text(json.dumps(record), encoding="utf-8")
    found = last_of(Path("../home"), "x")
    assert found is not None
    assert found.model_dump(exclude={"protocol"}) == record
