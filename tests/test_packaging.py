"""The files that install the project agree with each other."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import pipeline
from pipeline.stage import STAGE_NAMES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DIRECT = [
    Requirement(text)
    for text in PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]
]


def pins(text: str) -> dict[str, Version]:
    found = re.findall(r"^[ -]*([A-Za-z0-9_.-]+)==([^\s#]+)", text, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))


def test_every_direct_dependency_is_pinned_inside_its_bounds() -> None:
    for requirement in DIRECT:
        name = canonicalize_name(requirement.name)
        assert name in CONSTRAINTS, f"constraints.txt lacks {name}"
        assert requirement.specifier.contains(CONSTRAINTS[name]), f"{requirement} excludes the pin of constraints.txt"


def test_constraints_pin_exactly_and_name_no_index() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert len(lines) == len(CONSTRAINTS) > len(DIRECT)
    assert [line.split("==")[0] for line in lines] == sorted(line.split("==")[0] for line in lines)
    assert not [name for name in CONSTRAINTS if re.match("nvidia|cuda|triton", name)], "these follow torch"


def test_environment_yml_has_the_same_pins() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    environment = pins(text)
    assert set(environment) == {canonicalize_name(requirement.name) for requirement in DIRECT}
    assert environment == {name: CONSTRAINTS[name] for name in environment}
    assert "- -c constraints.txt" in text
    python = re.search(r"python=([0-9.]+)$", text, re.MULTILINE)
    assert python
    assert PROJECT["project"]["requires-python"] == f">={python[1]}"


def test_every_recipe_is_package_data() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["pipeline.recipes"]
    folder = ROOT / "pipeline" / "recipes"
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    files = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == packed != set()


@pytest.mark.parametrize(("part", "templates"), [
    ("report", "templates"), ("export", "pages"), ("serving", "page"), ("slurm", "templates"),
])
def test_every_template_is_package_data(part: str, templates: str) -> None:
    folder = ROOT / "pipeline" / part
    packed = {path for pattern in PROJECT["tool"]["setuptools"]["package-data"][f"pipeline.{part}"]
              for path in folder.glob(pattern)}
    assert {path for path in (folder / templates).iterdir() if path.is_file()} == packed != set()


def test_every_folder_with_modules_is_a_package_that_is_installed() -> None:
    folders = {path.parent for path in (ROOT / "pipeline").rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]
    setuptools = PROJECT["tool"]["setuptools"]
    elsewhere, of_data = setuptools["package-dir"], {"pipeline.recipes"}
    modules = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert sorted(modules | of_data | set(elsewhere)) == setuptools["packages"]
    assert all((ROOT / folder).is_dir() for folder in elsewhere.values())


def test_there_is_one_script_per_stage_and_one_for_all() -> None:
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert scripts >= {*STAGE_NAMES, "run_all"}


def test_changelog_and_licence_fit_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## (.+)$", changelog, re.MULTILINE)
    assert first
    assert pipeline.__version__ in first[1]
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_the_console_command_calls_the_same_main() -> None:
    assert PROJECT["project"]["scripts"] == {"staged-ulmfit": "pipeline.__main__:main"}
    done = subprocess.run(
        [sys.executable, "-c", "import pipeline.__main__ as m, sys; sys.argv = ['staged-ulmfit', '--help']; m.main()"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )
    assert "staged-ulmfit [OPTIONS] COMMAND" in done.stdout


def test_ci_gate_is_valid_bash_and_make_knows_its_targets() -> None:
    gate = ROOT / ".ci" / "run"
    assert gate.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(gate)], check=True)
    make = shutil.which("make")
    assert make
    for target in ("demo", "test", "test-slow", "lint", "clean"):
        subprocess.run([make, "-n", target, f"PYTHON={sys.executable}"], cwd=ROOT, check=True, capture_output=True)
