"""Honest and published: what may have read the test documents before they are scored.

Honest: only the evaluation reads them. Published: as the notebooks do, the language model is trained on their text too
(without labels), and the classifier is trained on all of train, with the test documents themselves as validation, so
that they choose the epoch. Whatever saw them in either way is published, however it came about.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

Protocol = Literal["honest", "published"]
PUBLISHED_SETTINGS: dict[str, Any] = {"finetune_lm.transductive": True, "train_classifier.validate_on": "test"}
"""What the published protocol sets, whatever the recipe says."""
SUFFIX = "-published"
"""Ends the name of every run under that protocol, so that its artifacts lie apart."""


def overrides() -> list[str]:
    """The settings of the published protocol as `section.key=value`."""
    return [f"{key}={json.dumps(value)}" for key, value in PUBLISHED_SETTINGS.items()]


def protocol_of(metrics: Mapping[str, Any]) -> Protocol:
    """The protocol of an artifact, told by its metrics: `transductive` and `validated_on`."""
    return "published" if metrics.get("transductive") or metrics.get("validated_on") == "test" else "honest"


def what_was_read(metrics: Mapping[str, Any]) -> list[str]:
    """How the test documents were used before they were scored, in clauses; none if they were not."""
    if metrics.get("trained_elsewhere"):
        made_so = protocol_of(metrics) == "published"
        return ["the classifier was made in that way, on a corpus other than the one scored"] if made_so else []
    clauses = []
    if metrics.get("transductive"):
        clauses.append("the language model has read the test documents' text")
    if metrics.get("validated_on") == "test":
        clauses.append("the epoch was chosen on the test documents")
    return clauses
