"""The artifacts behind a run's last result, found by the fingerprints in the manifests and nothing else."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import MANIFEST, Artifact, InputRecord, Manifest, find_manifest, open_artifact, read_manifest
from pipeline.errors import InputError
from pipeline.stage import STAGES, Run

START, START_CLASSIFIER = "start_lm", "start_classifier"
"""Slots of the earlier models that others start from."""
_SLOTS = [stage.writes for stage in STAGES]


@dataclass(frozen=True)
class Link:
    """One artifact of the chain."""

    role: str
    """Its slot; what an earlier model was made of is called start_lm/SLOT or start_classifier/SLOT, what a given one
    was made of that the run has another of, lm/SLOT or classifier/SLOT, and what a member of an ensemble was made of
    that one before it has another of, member NAME/SLOT."""
    path: Path
    fingerprint: str
    manifest: Manifest | None
    """None if the artifact of this fingerprint is not at its place any more."""
    member: str = ""
    """The role of the member of an ensemble that this belongs to."""
    is_of_another: bool = False
    """True for an earlier model that another one started from, and for what that, or a given one, was made of."""


def find_chain(run: Run) -> list[Link]:
    """The last sealed artifact of a run and all it was made of, each once, in the order of the line.

    A given one is the last only where the run made none itself. Raises InputError if nothing of the run is sealed.
    """
    own = [stage for stage in reversed(STAGES) if run.given(stage.writes) is None]
    for stage in [*own, *(stage for stage in reversed(STAGES) if stage not in own)]:
        path = run.path(stage.writes)
        manifest = read_manifest(path)
        if manifest is not None:
            return chain_to(Artifact(path, manifest), run.home)
    raise InputError(f"The run {run.name} has nothing to report yet.", f"Make it: {run.command('run')}")


def chain_to(artifact: Artifact, home: Path) -> list[Link]:
    """`artifact` and all it was made of, each once, in the order of the line.

    As far as it lies below `home` or, of what was packed, beside it.
    """
    manifest = artifact.manifest
    links = _links(home, Link(manifest.slot, artifact.path, manifest.fingerprint, manifest))
    return sorted(links, key=_place)


def _links(home: Path, last: Link) -> Iterator[Link]:
    queue, seen, roles = [last], {last.fingerprint}, {last.role}
    own: dict[tuple[str, str], str] = {}  # fingerprints by member and slot
    while queue:
        link = queue.pop(0)
        yield link
        for slot, record in link.manifest.inputs.items() if link.manifest else ():
            is_of_another = link.is_of_another or slot in (START, START_CLASSIFIER)
            if not is_of_another:
                is_of_another = own.setdefault((link.member, slot), record.fingerprint) != record.fingerprint
            if record.fingerprint in seen:
                continue
            seen.add(record.fingerprint)
            names = [f"{link.member or link.role.partition('/')[0]}/{slot}", f"{link.role}/{slot}"]
            role = next(name for name in ([] if link.is_of_another else [slot]) + names if name not in roles)
            roles.add(role)
            path, found = _find(link, record, home)
            member = slot if link.manifest and link.manifest.slot == "ensemble" else link.member
            queue.append(Link(role, path, record.fingerprint, found, member, is_of_another))


def _place(link: Link) -> tuple[bool, int]:
    """Where an artifact stands in the line; what models start from comes first."""
    slot = link.role.rpartition("/")[2].removeprefix("start_")
    return not link.is_of_another, _SLOTS.index(slot) if slot in _SLOTS else len(_SLOTS)


def _find(link: Link, record: InputRecord, home: Path) -> tuple[Path, Manifest | None]:
    """Where an input of `link` lies, and its manifest; None if it is not there any more."""
    path = home / record.path
    by_name = Path(os.path.normpath(home.absolute() / record.path))  # earlier versions went up from a link by its name
    places = [(path, False), (by_name, False)]
    if link.manifest is not None and link.manifest.original is not None:
        places.append((link.path.parent / path.name, True))  # models are packed into one folder
    for place, packed in places:
        found = find_manifest(place, record.fingerprint, packed=packed)
        if found is not None:
            return place, found
    return path, None


def manifests(chain: list[Link]) -> dict[str, Any]:
    """The manifests of `chain` as they are written, by role: what their files say, not what we make of it."""
    return {
        link.role: json.loads((link.path / MANIFEST).read_text(encoding="utf-8"))
        for link in chain if link.manifest is not None
    }


def opened(chain: list[Link], role: str) -> Artifact | None:
    """The artifact of `role` with every file checked; None if it is not there. InputError if it is damaged."""
    link = next((link for link in chain if link.role == role and link.manifest is not None), None)
    if link is None or link.manifest is None:
        return None
    return open_artifact(link.path, link.manifest.slot)
