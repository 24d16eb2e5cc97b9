"""Where an evaluation comes from: the artifacts it read and the ones those were made from."""

from collections.abc import Iterable

from pipeline.artifact import Artifact


def fingerprints(artifacts: Iterable[Artifact]) -> dict[str, str]:
    """Fingerprints by slot, of `artifacts` and of what they read; what was read directly is named first."""
    artifacts = list(artifacts)
    known = {artifact.manifest.slot: artifact.manifest.fingerprint for artifact in artifacts}
    for artifact in artifacts:
        for slot, record in artifact.manifest.inputs.items():
            known.setdefault(slot, record.fingerprint)
    return known


def trained_on(classifier: Artifact, ids: Artifact) -> bool:
    """True if `classifier` was trained on the train split of exactly these `ids`."""
    return _ids_of(classifier) == ids.manifest.fingerprint


def scored_elsewhere(classifier: Artifact, evaluation: Artifact) -> bool:
    """True if `evaluation` read other ids than those `classifier` was trained on."""
    return _ids_of(classifier) != _ids_of(evaluation)


def _ids_of(artifact: Artifact) -> str | None:
    record = artifact.manifest.inputs.get("ids")
    return None if record is None else record.fingerprint
