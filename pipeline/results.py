"""Evaluated runs side by side: their figures, what they had to beat, and what each of their stages took."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import MANIFEST, Artifact, InputRecord, Manifest, read_manifest
from pipeline.errors import InputError, UsageError
from pipeline.pretrained import shipped_models
from pipeline.progress import format_duration
from pipeline.report.chain import START, START_CLASSIFIER, Link, chain_to
from pipeline.report.summary import aligned, interval, notes, percent, to_beat, with_protocol

SLOTS = ("evaluation", "ensemble")


@dataclass(frozen=True)
class StageCost:
    """What making one artifact took."""

    role: str
    wall_s: float
    peak_memory_mb: float
    hardware: str | None
    """Processor or GPU; None if it was not recorded."""


@dataclass(frozen=True)
class Result:
    """One sealed evaluation or ensemble."""

    run: str
    slot: str
    corpus: str
    """Hash of the documents that were split."""
    how: str
    """What the classifier started from, or that it is an ensemble."""
    metrics: dict[str, Any]
    """Of the evaluation's manifest."""
    language_model: dict[str, Any] | None
    """Metrics of the language model's manifest; None for an ensemble, or if it is not at hand."""
    classifier: dict[str, Any] | None
    """Metrics of the classifier's manifest; None likewise."""
    stages: list[StageCost]
    """Of the run itself, or of all members, in the order of the line; not of a language model it started from, nor of
    what was packed, which no longer says."""
    created: str

    @property
    def wall_s(self) -> float:
        """Time of all stages."""
        return sum(stage.wall_s for stage in self.stages)


def read_results(names: Sequence[str], home: Path) -> list[Result]:
    """What was evaluated under each of `names`: runs below `home`, models that ship, or folders of evaluations and
    ensembles.

    Raises InputError if there is nothing or it is damaged, UsageError if the runs have no corpus in common.
    """
    results = [result for name in names for result in _read(name, home)]
    for other in results[1:]:
        if other.corpus != results[0].corpus:
            raise UsageError(
                f"{results[0].run} and {other.run} were evaluated on different documents.",
                "Name runs of one corpus: their accuracies cannot be compared.",
            )
    return results


def table(results: Sequence[Result]) -> str:
    """Majority class, baselines (they look at as many labels as their result) and every result, in aligned columns."""
    rows = [["Test split", "", "accuracy", "95 % interval", "time"]]
    beaten = dict.fromkeys(tuple(row) for result in results for row in to_beat(result.metrics))
    rows += [[name, "", accuracy, spread, ""] for name, accuracy, spread in beaten]
    rows += [
        [with_protocol(result.run, result.metrics), result.how, percent(result.metrics["accuracy"]),
         interval(result.metrics), format_duration(result.wall_s) if result.stages else ""]
        for result in results
    ]
    said = dict.fromkeys(note for result in results for note in notes(result.metrics))
    return "\n".join([*aligned(rows, left=2), f"{results[0].metrics['test_documents']:,} test documents", *said])


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The results as one list for scripts."""
    return [asdict(result) for result in results]


def _read(name: str, home: Path) -> list[Result]:
    folder = Path(name)
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    if manifest is not None and manifest.slot in SLOTS:
        place = folder.resolve()
        name = place.parent.name if place.name in SLOTS else place.name  # models/RUN/evaluation, or models/both
        return [_result(name, Artifact(folder, manifest), home)]
    shipped = shipped_models().get(name)
    found = _results_in(home / "models" / name, name, home)
    if not found and shipped is not None:
        found = _results_in(shipped, name, home)
    if not found:
        raise InputError(
            f"{name} is no run in {home / 'models'} that was evaluated, and no folder of an evaluation.",
            f"Make it first: python -m pipeline run --run {name}",
        )
    return found


def _results_in(folder: Path, name: str, home: Path) -> list[Result]:
    manifests = ((folder / slot, read_manifest(folder / slot)) for slot in SLOTS)
    return [_result(name, Artifact(path, manifest), home) for path, manifest in manifests if manifest is not None]


def _result(name: str, artifact: Artifact, home: Path) -> Result:
    manifest = artifact.manifest
    links = chain_to(artifact, home)
    known = {link.fingerprint: link for link in links}
    classifier = None if manifest.slot == "ensemble" else _input(known, manifest, "classifier")
    lm = _input(known, classifier, "lm")
    random = _is_random(classifier)  # then the language model gave nothing but sizes
    costs = [
        StageCost(link.role, link.manifest.wall_s, link.manifest.peak_memory_mb, link.manifest.hardware)
        for link in links
        if link.manifest is not None and link.manifest.has_cost and not link.is_of_another
        and not (random and link.role == "lm")
    ]
    return Result(
        name, manifest.slot, manifest.identity["corpus"], _how(manifest, classifier, lm, known), manifest.metrics,
        _metrics(lm), _metrics(classifier), costs, manifest.created,
    )


def _input(known: dict[str, Link], manifest: Manifest | None, slot: str) -> Manifest | None:
    """The manifest of what `manifest` was made of; None if it is not at hand."""
    if manifest is None or slot not in manifest.inputs:
        return None
    return known[manifest.inputs[slot].fingerprint].manifest


def _metrics(manifest: Manifest | None) -> dict[str, Any] | None:
    return None if manifest is None else manifest.metrics


def _is_random(classifier: Manifest | None) -> bool:
    return classifier is not None and classifier.metrics.get("encoder") == "random"


def _how(manifest: Manifest, classifier: Manifest | None, lm: Manifest | None, known: dict[str, Link]) -> str:
    if manifest.slot == "ensemble":
        return f"ensemble of {len(manifest.inputs)}"
    if _is_random(classifier):
        return "no language model"
    if classifier is not None and START_CLASSIFIER in classifier.inputs:
        return f"from the classifier {_name(known, classifier.inputs[START_CLASSIFIER])}"
    if lm is None:
        return "language model not at hand"
    return f"fine-tuned from {_name(known, lm.inputs[START])}" if START in lm.inputs else "language model from scratch"


def _name(known: dict[str, Link], start: InputRecord) -> str:
    """What the earlier model is called that another one started from: a shipped one by its name."""
    place = known[start.fingerprint].path.resolve()
    shipped = next((name for name, folder in shipped_models().items() if place.is_relative_to(folder)), None)
    return shipped or Path(start.path).as_posix()
