"""Rules of the house that a program can check."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPANIONS = ROOT / "scripts" / "companions"
SOURCES = sorted([
    *(ROOT / "pipeline").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *COMPANIONS.glob("*.py"),
])
MAX_LINES = 350

# A module may import from its own part and from parts of a line above; parts of one line are strangers.
LEVELS = (
    {"__init__"},
    {"errors", "settings", "protocol", "pretrained"},
    {"training_settings", "options", "plain_templates", "storage", "progress", "provenance", "published"},
    {"picture"},
    {"lock", "attempt"},
    {"recipe", "artifact", "stopping"},
    {"describe", "download", "machine", "custody", "ranks", "differences", "remembered"},
    {"hardware"},
    {"making"},
    {"stage"},
    {"corpus"},
    {"text", "standing"},
    {"model"},
    {"training"},
    {"inference"},
    {"report", "serving"},
    {"ladder"},
    {"stages", "parts", "followers", "runs", "import_fastai", "export", "pack", "counterpart", "results"},
    {"refusals", "slurm", "ensembles", "find_lr", "reporting", "compare", "token_views"},
    {"status"},
    {"benchmark", "commands"},
    {"cli"},
    {"__main__"},
)
USED_BY_COMPANIONS = {"download", "errors", "picture", "progress", "published", "report", "storage"}
"""What has nothing to do with text; of `report` it is the table."""
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}
BANNED_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal"}
BANNED_CALLS = {"eval", "exec", "joblib.load", "yaml.load", "torch.save"}


def part_of(path: Path) -> str:
    """The part of the package that a file belongs to: `stage`, `corpus`, ..., or `scripts`."""
    relative = path.relative_to(ROOT)
    return relative.parts[0] if relative.parts[0] == "scripts" else relative.with_suffix("").parts[1]


def imported_modules(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_imported(path: Path) -> set[str]:
    modules = [name.split(".") for name in imported_modules(path) if name.split(".")[0] == "pipeline"]
    return {m[1] for m in modules if len(m) > 1 and m[1] in LEVEL_OF}


def name_of(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_one_way(path: Path) -> None:
    part = part_of(path)
    if path.parent == COMPANIONS:
        assert parts_imported(path) <= USED_BY_COMPANIONS
        return
    if part == "scripts":
        # Not doors: they write pages from definitions, break the pipeline from outside, or measure its parts.
        assert parts_imported(path) == {"cli"} or path.name.startswith(("update_", "fault_harness.", "measure_"))
        return
    assert part in LEVEL_OF, f"say in LEVELS where {part} stands"
    for other in parts_imported(path) - {part}:
        assert LEVEL_OF[other] < LEVEL_OF[part], f"{part} imports {other}, which stands below or beside it"


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_pipeline_knows_no_companion(path: Path) -> None:
    known = {name.split(".")[0] for name in imported_modules(path)}
    assert not known & {"scripts", *(companion.stem for companion in COMPANIONS.glob("*.py"))}


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline" / "stages").glob("*.py")), ids=lambda p: p.name)
def test_no_stage_imports_a_stage(path: Path) -> None:
    assert not [name for name in imported_modules(path) if name.startswith("pipeline.stages")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert path.stem not in {"utils", "util", "common", "helpers", "misc"}


def unsafe_loads(tree: ast.AST) -> list[str]:
    """Every import and call that could run code hidden in data."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in BANNED_MODULES]
        elif isinstance(node, ast.ImportFrom):
            if str(node.module).split(".")[0] in BANNED_MODULES:
                found.append(str(node.module))
            found += [f"{node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" in BANNED_CALLS]
        elif isinstance(node, ast.Call):
            name = name_of(node.func)
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in BANNED_CALLS or keywords.get("allow_pickle") == "True":
                found.append(name)
            if name == "torch.load" and keywords.get("weights_only") != "True":
                found.append(name)
    return [name for name in found if name]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_that_runs_code_out_of_data(path: Path) -> None:
    assert unsafe_loads(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "import cloudpickle as p", "from dill import loads", "from joblib import load",
        "import joblib; joblib.load(f)", "torch.load(f)", "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)", "yaml.load(f)", "eval(text)", "exec(text)",
    ],
)
def test_the_check_sees_what_it_bans(code: str) -> None:
    assert unsafe_loads(ast.parse(code))


SAFE = ["torch.load(f, weights_only=True)", "np.load(f)", "model.eval()", "yaml.safe_load(f)"]


@pytest.mark.parametrize("code", SAFE)
def test_the_check_lets_the_safe_forms_pass(code: str) -> None:
    assert not unsafe_loads(ast.parse(code))
