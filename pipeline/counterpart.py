"""Where the same run was made under both protocols, the results of each state those of the other too.

The one that is sealed later finds the other; so results get this one addition after they were sealed, under their lock
and by renames, as every seal. Their fingerprint stays: what was predicted is the same.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline import artifact as artifacts
from pipeline import making
from pipeline.artifact import Artifact
from pipeline.attempt import open_partial, partial_path, unfinished
from pipeline.errors import LockedError
from pipeline.progress import Reporter
from pipeline.protocol import protocol_of
from pipeline.report import ensemble_page, evaluation_page

PAGES = {"evaluation": ("evaluation.md", evaluation_page.render), "ensemble": ("ensemble.md", ensemble_page.render)}
FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "calibration_error")


def state_both(here: Path, there: Path, slot: str, reporter: Reporter) -> bool:
    """Add to the results (`slot`) of each of two runs what the other found, if they are of two protocols.

    Returns False, and changes nothing, unless both are sealed, on one corpus, under two protocols. Raises InputError if
    one of them is damaged.
    """
    found = [artifacts.read_manifest(path) for path in (here, there)]
    if any(manifest is None or manifest.slot != slot for manifest in found):
        return False
    one, other = (artifacts.open_artifact(path, slot) for path in (here, there))
    if one.manifest.identity.get("corpus") != other.manifest.identity.get("corpus"):
        return False
    if protocol_of(one.manifest.metrics) == protocol_of(other.manifest.metrics):
        return False
    for ours, theirs in ((one, other), (other, one)):
        try:
            _state(ours, _figures(theirs), reporter)
        except LockedError as error:
            reporter.line(f"{ours.path} does not state the other protocol yet: {error.what}")
    return True


def _figures(result: Artifact) -> dict[str, Any]:
    metrics = _metrics(result)
    return {
        "run": result.path.parent.name,
        "protocol": protocol_of(metrics["protocol"]),
        "fingerprint": result.manifest.fingerprint,
        **{key: metrics[key] for key in FIGURES},
    }


def _metrics(result: Artifact) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(result.file("metrics.json").read_text(encoding="utf-8"))
    return metrics


def _state(result: Artifact, figures: dict[str, Any], reporter: Reporter) -> None:
    path, manifest = result.path, result.manifest
    if _metrics(result).get("other_protocol") == figures:
        return
    with making.held(path, manifest.stage):
        attempt, now = unfinished(path), artifacts.read_manifest(path)
        if now != manifest or (attempt is not None and attempt.fingerprint != manifest.fingerprint):
            return  # it is being made anew, and will be compared when it is done
        shutil.rmtree(partial_path(path), ignore_errors=True)
        folder, _ = open_partial(path, manifest.fingerprint)
        shutil.copytree(path, folder, dirs_exist_ok=True)
        page, render = PAGES[manifest.slot]
        metrics = {**_metrics(result), "other_protocol": figures}
        (folder / "metrics.json").write_text(
            json.dumps(metrics, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        (folder / page).write_text(render(metrics), encoding="utf-8")
        stated = {**manifest.metrics, "other_protocol": figures}
        artifacts.seal(path, manifest.model_copy(update={"metrics": stated, "files": {}}))
        reporter.line(f"{path} states the {figures['protocol']} protocol too ({figures['run']})")
