"""Sealed artifact folders: complete or absent, self-describing, verified on every load.

A stage works in a hidden sibling of its output folder. Sealing hashes every file, writes `manifest.json` last,
syncs to disk and renames the sibling onto the final name. A folder without a valid manifest is not an artifact.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.attempt import RESUME, partial_path
from pipeline.errors import InputError
from pipeline.storage import open_to_others, sync

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
PACK = "pack"
"""The maker of packed artifacts, and the section of their settings that names what they were packed from."""
PACK_KEEPS_COST = 3
"""The first code version of `pack` whose artifacts have the time and memory of the work, not of the packing."""


class FileRecord(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    size_bytes: int


class InputRecord(BaseModel):
    """One artifact that was read to make this one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    fingerprint: str


class _Written(BaseModel):
    """What every version of a manifest has."""

    format_version: int


class Manifest(BaseModel):
    """Everything an artifact says about itself. `seal` is the SHA-256 of all other fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    slot: str
    """What the artifact is: corpus, tokens, ids, lm, classifier or evaluation."""
    stage: str
    code_version: int
    fingerprint: str
    settings: dict[str, dict[str, Any]]
    inputs: dict[str, InputRecord]
    source: dict[str, Any] | None
    """The outside data that was read (kind, sha256, size, published address).

    Only a corpus and an imported lm have one.
    """
    identity: dict[str, str]
    """Hashes that tie artifacts together: vocabulary, tokenizer, direction, architecture."""
    files: dict[str, FileRecord]
    versions: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    host: str
    job_id: str | None
    device: str | None
    hardware: str | None = None
    """Processor or GPU that it was made with, of several attempts the last; None from before it was recorded."""
    precision: dict[str, str] | None
    """Requested and effective arithmetic of a training stage."""
    created: str
    wall_s: float
    """Seconds of all its attempts, of one that was cut off until the last thing it kept; packed, of the original."""
    peak_memory_mb: float
    metrics: dict[str, Any]
    seal: str = ""

    @property
    def original(self) -> str | None:
        """Fingerprint of the artifact that this one was packed from; None if it was not packed."""
        packed: dict[str, str] = self.settings.get(PACK, {})
        return packed.get("of")

    @property
    def has_cost(self) -> bool:
        """True if `wall_s` and `peak_memory_mb` are of the work; False of what `pack` wrote before it kept them."""
        return self.original is None or self.code_version >= PACK_KEEPS_COST

    def sealed(self) -> "Manifest":
        """A copy with its seal filled in."""
        return self.model_copy(update={"seal": self._hash()})

    def is_intact(self) -> bool:
        """False when any field was edited after sealing."""
        return self.seal == self._hash()

    def as_written(self) -> str:
        """The text of its file."""
        return self.model_dump_json(indent=2, exclude=self._unrecorded()) + "\n"

    def _hash(self) -> str:
        # By way of the written form, in which NaN and infinity are null.
        return hash_json(json.loads(self.model_dump_json(exclude={"seal", *self._unrecorded()})))

    def _unrecorded(self) -> set[str]:
        """Artifacts from before hardware was recorded were sealed without it."""
        return set() if self.hardware is not None else {"hardware"}


@dataclass(frozen=True)
class Artifact:
    """A sealed folder and its manifest."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Path of one of the artifact's files; InputError if the manifest does not list it."""
        if name not in self.manifest.files:
            raise InputError(f"{self.path} holds no {name}.", "Name an artifact of the right kind.")
        return self.path / name

    def as_input(self, home: Path) -> InputRecord:
        """How the manifest of what is made of this artifact names it."""
        return InputRecord(path=path_from(home, self.path), fingerprint=self.manifest.fingerprint)


def path_from(home: Path, path: Path) -> str:
    """`path` as seen from `home`: `home` joined with it is `path`, also where either goes through a link."""
    full, base = path.absolute(), home.absolute()
    if full.is_relative_to(base):
        return str(full.relative_to(base))
    return os.path.relpath(path.resolve(), home.resolve())  # up from a link is up from where it points


def hash_json(value: Any) -> str:
    """SHA-256 of the canonical JSON form of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_folder(path: Path) -> str:
    """SHA-256 over the relative names and contents of all files below `path`."""
    files = sorted(f for f in path.rglob("*") if f.is_file())
    return hash_json([[f.relative_to(path).as_posix(), hash_file(f)] for f in files])


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of the artifact at `path`, or None if there is no such folder or an empty one.

    Raises InputError if what lies there has no manifest or one that was damaged or edited.
    """
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        mend = "Name another folder, or move this one away."
        raise InputError(f"{path} is not a sealed artifact: it has no {MANIFEST}.", mend) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path / MANIFEST} is damaged: {error}.", _anew()) from error
    try:
        written = _Written.model_validate_json(text)
        if written.format_version > FORMAT_VERSION:
            raise InputError(
                f"{path} was sealed by a newer version of this program (format {written.format_version}, this one "
                f"reads {FORMAT_VERSION}).",
                "Install the newer version.",
            )
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path / MANIFEST} is damaged: {where} {first['msg']}.", _anew()) from error
    if not manifest.is_intact():
        mend = _anew(manifest.stage)
        raise InputError(f"{path / MANIFEST} was changed after sealing (seal {manifest.seal[:12]}).", mend)
    return manifest


def _anew(stage: str = "its stage") -> str:
    """What mends a damaged artifact that `stage` made."""
    return f"Restore it from a copy, or have {stage} make it anew with --force."


def find_manifest(path: Path, fingerprint: str, *, packed: bool = False) -> Manifest | None:
    """The manifest at `path` if it is that of the artifact `fingerprint`, or with `packed` of a packed copy of it.

    None if there is another one, a damaged one or none.
    """
    try:
        manifest = read_manifest(path)
    except InputError:
        return None
    if manifest is None:
        return None
    known = {manifest.fingerprint, manifest.original} if packed else {manifest.fingerprint}
    return manifest if fingerprint in known else None


def open_artifact(path: Path, slot: str) -> Artifact:
    """Open the sealed `slot` artifact at `path` after checking the size and SHA-256 of every file.

    Raises InputError, naming the file, if the artifact is missing, of another kind, or damaged.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise InputError(f"There is no {slot} artifact at {path}.")
    if manifest.slot != slot:
        raise InputError(f"{path} holds {manifest.slot}, not {slot}.", "Name an artifact of the right kind.")
    artifact = Artifact(path, manifest)
    verify_files(artifact)
    return artifact


def verify_files(artifact: Artifact) -> None:
    """Check size and SHA-256 of every file; InputError names the first that differs."""
    mend = _anew(artifact.manifest.stage)
    for name, record in artifact.manifest.files.items():
        path = artifact.path / name
        try:
            size = path.stat().st_size
            if size != record.size_bytes:
                raise InputError(f"{path} has {size} bytes, its manifest says {record.size_bytes}.", mend)
            found = hash_file(path)
        except FileNotFoundError:
            raise InputError(f"{path} is missing, its manifest lists it.", mend) from None
        if found != record.sha256:
            raise InputError(
                f"{path} was changed after sealing: SHA-256 {found[:12]}, its manifest says {record.sha256[:12]}.", mend
            )


def _replaced_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def recover(target: Path) -> None:
    """Finish or undo a replacement that was cut off midway. Call with the lock held.

    Raises InputError if `target` is a link to nothing, on which nothing could be sealed.
    """
    if target.is_symlink() and not target.exists():
        raise InputError(f"{target} is a link to {target.readlink()}, which is not there.", f"Remove it: rm {target}")
    replaced = _replaced_path(target)
    if replaced.is_symlink() and target.exists():  # it led to another disk, where the old artifact stays
        replaced.unlink()
    elif replaced.exists():
        if target.exists():
            shutil.rmtree(replaced)
        else:
            replaced.rename(target)
    if (target / RESUME).exists():
        shutil.rmtree(target / RESUME)


def seal(target: Path, manifest: Manifest) -> Artifact:
    """Turn the work folder of `target` into the artifact `target`; an old one is replaced by renames.

    `manifest` comes without files and seal. What lies in the `resume` folder serves an interrupted stage only: it is
    kept until the rename is done, so that a kill at any moment loses nothing, and is not part of the artifact.
    """
    partial = partial_path(target)
    paths = sorted(
        p for p in partial.rglob("*") if p.is_file() and p.relative_to(partial).parts[0] not in (RESUME, MANIFEST)
    )
    for path in paths:
        open_to_others(path)
        sync(path)
    files = {
        path.relative_to(partial).as_posix(): FileRecord(sha256=hash_file(path), size_bytes=path.stat().st_size)
        for path in paths
    }
    manifest = manifest.model_copy(update={"files": files}).sealed()
    (partial / MANIFEST).write_text(manifest.as_written(), encoding="utf-8")
    sync(partial / MANIFEST)
    for folder in {partial, *(p.parent for p in paths)}:
        sync(folder)
    replaced = _replaced_path(target)
    if target.exists():
        target.rename(replaced)
    partial.rename(target)
    sync(target.parent)
    recover(target)
    return Artifact(target, manifest)
