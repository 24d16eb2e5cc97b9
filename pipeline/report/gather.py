"""Everything that a run's report is made of, read from sealed artifacts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.report.chain import Link, find_chain, manifests, opened
from pipeline.report.derived import Predictions, attribution_method, document_lengths, type_coverage
from pipeline.report.figures import Sources
from pipeline.stage import Run
from pipeline.text.ids import IdStore
from pipeline.training.curve import CURVE, Point, read_curve
from pipeline.training.history import Record, read_history

DERIVED = "report.json"
METRICS = "evaluation/metrics.json"
HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Trained:
    """The training of one model."""

    role: str
    created: str
    history: list[Record]
    curve: list[Point]
    """Empty for a model of before there were curves."""


@dataclass(frozen=True)
class Material:
    """What a report is written from."""

    run: Run
    chain: list[Link]
    sources: Sources
    curves: dict[str, list[Point]] = field(default_factory=dict)
    """By role."""

    def manifest(self, role: str) -> str:
        """Name of the source that holds the manifest of `role`."""
        return f"{role}/manifest.json"


def gather(run: Run) -> Material:
    """Read the run's artifacts, and work out what report.json holds.

    Raises InputError if nothing is sealed or if an artifact is damaged.
    """
    chain = find_chain(run)
    documents: dict[str, Any] = {f"{role}/manifest.json": text for role, text in manifests(chain).items()}
    curves = {}
    for trained in _trained(chain):
        documents[f"{trained.role}/history.jsonl"] = trained.history
        curves[trained.role] = trained.curve
    evaluation = opened(chain, "evaluation")
    if evaluation is not None:
        documents[METRICS] = _read_json(evaluation.file("metrics.json"))
    documents[DERIVED] = _derive(chain, evaluation, documents)
    return Material(run, chain, Sources(documents), curves)


def read_training(run: Run) -> list[Trained]:
    """The training of each model behind a run's last result; InputError if nothing is sealed."""
    return list(_trained(find_chain(run)))


def _trained(chain: list[Link]) -> Iterator[Trained]:
    """Imported models have no history; they are left out."""
    for link in chain:
        if link.manifest is None or HISTORY not in link.manifest.files:
            continue
        artifact = opened(chain, link.role)
        assert artifact is not None
        curve = read_curve(artifact.file(CURVE)) if CURVE in artifact.manifest.files else []
        yield Trained(link.role, link.manifest.created, read_history(artifact.file(HISTORY)), curve)


def _derive(chain: list[Link], evaluation: Artifact | None, documents: dict[str, Any]) -> dict[str, Any]:
    derived: dict[str, Any] = {
        "made_from": {link.role: link.fingerprint for link in chain},
        "wall_s": sum(link.manifest.wall_s for link in chain if link.manifest is not None and link.manifest.has_cost),
    }
    if evaluation is not None:
        derived["metrics_sha256"] = evaluation.manifest.files["metrics.json"].sha256
    ids, tokens = opened(chain, "ids"), opened(chain, "tokens")
    if ids is None:
        return derived
    store = IdStore.open(ids)
    derived["lengths"] = document_lengths(store)
    if tokens is not None:
        derived["coverage"] = type_coverage(tokens, store.vocabulary)
    if evaluation is not None:
        metrics = documents[METRICS]
        predictions = Predictions(evaluation, store, metrics["labels"])
        derived["by_length"] = predictions.by_length(metrics["seed"])
        classifier = opened(chain, "classifier")
        if classifier is not None:
            derived["attribution"] = attribution_method(classifier)
            derived["mistakes"] = predictions.mistakes(classifier)
    return derived


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
