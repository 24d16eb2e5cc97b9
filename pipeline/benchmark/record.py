"""The figures that the README shows: kept in the checkout, with the machine they were measured on."""

import json
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline import provenance
from pipeline.benchmark.cases import CASES
from pipeline.benchmark.figures import Result
from pipeline.errors import UsageError
from pipeline.hardware import describe_machine
from pipeline.storage import write_durably

RESULTS = Path("scripts") / "benchmark" / "results.json"
_BESIDE = ("transformers",)
"""Packages measured beside those that every manifest names."""


def results_file() -> Path:
    """Where the figures are kept; UsageError outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / RESULTS.parent).is_dir():
        raise UsageError("--record keeps its figures in a checkout of the project, and this is none.", "Use --json.")
    return root / RESULTS


def kept_beside(path: Path, asked: Collection[str]) -> dict[str, dict[str, Any]]:
    """The cases in the file other than those `asked` for; asked before anything is measured, to fail at once.

    Raises UsageError if there are some from another machine or other versions.
    """
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    others = {case["name"]: case for case in kept.get("cases", ()) if case["name"] not in asked}
    if others and {name: kept[name] for name in _origin()} != _origin():
        raise UsageError(
            f"{path} has figures of another machine or of other versions.", "Record all cases: give no names."
        )
    return others


def keep(path: Path, results: Sequence[Result]) -> None:
    """Put `results` into the file in place of earlier ones; one that failed is left out. Raises as `kept_beside`."""
    others = kept_beside(path, [result.name for result in results])
    commit, dirty = provenance.git_state()
    origin = {"date": provenance.now()[:10], "commit": commit and commit[:12] + ("+" if dirty else "")}
    fine = (result for result in results if not result.failed)
    recorded = others | {result.name: {**result.as_json(), **origin} for result in fine}
    order = [case.name for case in CASES if case.name in recorded]
    document = {**_origin(), "cases": [recorded[name] for name in order]}
    write_durably(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def _origin() -> dict[str, Any]:
    return {"machine": describe_machine(), "versions": _versions()}


def _versions() -> dict[str, str]:
    found = provenance.installed_versions()
    for package in _BESIDE:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
