"""In which settings, inputs or code two makings of one artifact differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.artifact import Manifest
from pipeline.attempt import Attempt


def between(
    before: Manifest | Attempt, settings: Mapping[str, Mapping[str, Any]], code_version: int, inputs: Sequence[str]
) -> list[str]:
    """What an artifact, or an attempt, was made with and is no more, one phrase each; `inputs` are slots."""
    found = []
    for section, wanted in settings.items():
        sealed = before.settings.get(section, {})
        for key in sorted(set(wanted) | set(sealed)):
            if wanted.get(key) != sealed.get(key):
                found.append(f"{section}.{key} was {_short(sealed.get(key))}, now {_short(wanted.get(key))}")
    if before.code_version != code_version:
        found.append(f"made by version {before.code_version} of the stage, now {code_version}")
    for name in sorted(set(inputs) ^ set(before.inputs)):
        found.append(f"input {name} was {'not ' if name not in before.inputs else ''}used")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
