"""Checkpoints inside an unfinished stage: atomic, checksummed, the newest valid one is taken.

`checkpoint-00001234/` holds what `write` put there and, written last, a manifest with the SHA-256 and size of each
file. It is made in a temporary sibling, synced and renamed, so it is complete or absent; a damaged one is set aside by
name, never loaded and never deleted before the stage is sealed.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.artifact import FileRecord, hash_file, hash_json
from pipeline.progress import Reporter
from pipeline.storage import move_into_place, require_space, sync_tree

MANIFEST = "checkpoint.json"
FORMAT_VERSION = 1


class CheckpointManifest(BaseModel):
    """What a checkpoint says about itself; `seal` is the SHA-256 of the other fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    fingerprint: str
    """Of the attempt it belongs to: a checkpoint of another run is refused."""
    number: int
    files: dict[str, FileRecord]
    seal: str = ""

    def sealed(self) -> "CheckpointManifest":
        """A copy with its seal filled in."""
        return self.model_copy(update={"seal": hash_json(self.model_dump(exclude={"seal"}))})

    def as_text(self) -> str:
        """What the file holds, to the byte."""
        return self.model_dump_json(indent=1) + "\n"


class CheckpointStore:
    """The checkpoints of one unfinished stage, in `folder`; at least two valid ones are kept once there are two."""

    def __init__(
        self, folder: Path, fingerprint: str, *, keep: int, reporter: Reporter, prefix: str = "checkpoint",
        writes: bool = True,
    ) -> None:
        """`keep` is the number of checkpoints that remain. Without `writes` another process does all of the writing."""
        self._folder, self._fingerprint, self._keep, self._reporter = folder, fingerprint, keep, reporter
        self._prefix, self.writes = prefix, writes
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f".{prefix}-*.tmp"):
            shutil.rmtree(leftover)

    def path(self, number: int) -> Path:
        """Where the checkpoint `number` lies or will lie."""
        return self._folder / f"{self._prefix}-{number:08d}"

    def numbers(self) -> list[int]:
        """Numbers of the checkpoints that are there, valid or not, oldest first."""
        names = (path.name.removeprefix(f"{self._prefix}-") for path in self._folder.glob(f"{self._prefix}-*"))
        return sorted(int(name) for name in names if name.isdigit())

    def save(self, number: int, write: Callable[[Path], None], size_bytes: int) -> Path:
        """Make the checkpoint `number` from what `write` puts into a folder; older ones beyond `keep` go.

        Raises StorageError before anything is written if `size_bytes` more do not fit on the disk; whatever `write`
        raises leaves no trace.
        """
        final = self.path(number)
        if not self.writes:
            return final
        temporary = self._folder / f".{final.name}.tmp"
        if final.exists():
            damage = self.damage(final)
            if damage is None:
                return final
            self._set_aside(final, damage)
        require_space(self._folder, size_bytes)
        try:
            temporary.mkdir()
            write(temporary)
            files = {
                path.relative_to(temporary).as_posix(): FileRecord(
                    sha256=hash_file(path), size_bytes=path.stat().st_size
                )
                for path in sorted(temporary.rglob("*"))
                if path.is_file()
            }
            manifest = CheckpointManifest(fingerprint=self._fingerprint, number=number, files=files).sealed()
            (temporary / MANIFEST).write_text(manifest.as_text(), encoding="utf-8")
            sync_tree(temporary)
            move_into_place(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for old in self.numbers()[: -self._keep]:
            shutil.rmtree(self.path(old))
        return final

    def forget_after(self, number: int) -> None:
        """Remove the checkpoints with higher numbers, valid or not."""
        for later in self.numbers() if self.writes else ():
            if later > number:
                shutil.rmtree(self.path(later))

    def newest(self, usable: Callable[[Path], str | None] = lambda path: None) -> Path | None:
        """The newest valid checkpoint; damaged ones on the way are set aside with a message.

        `usable` may name a further reason why a checkpoint cannot be used.
        """
        for number in reversed(self.numbers()):
            path = self.path(number)
            reason = self.damage(path) or usable(path)
            if reason is None:
                return path
            aside = self._set_aside(path, reason)
            self._reporter.line(f"checkpoint {path.name} is not used: {reason}; set aside as {aside}")
        return None

    def damage(self, path: Path) -> str | None:
        """What is wrong with a checkpoint: its manifest, its seal, its files, or whose it is."""
        try:
            text = (path / MANIFEST).read_text(encoding="utf-8")
            manifest = CheckpointManifest.model_validate_json(text)
        except (OSError, UnicodeDecodeError, ValidationError):
            return f"its {MANIFEST} cannot be read"
        if text != manifest.sealed().as_text():
            return f"its {MANIFEST} was changed"
        if (manifest.fingerprint, self.path(manifest.number)) != (self._fingerprint, path):
            return f"it is checkpoint {manifest.number} of run {manifest.fingerprint[:12]}"
        return self._damaged_file(path, manifest)

    @staticmethod
    def _damaged_file(path: Path, manifest: CheckpointManifest) -> str | None:
        found = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} - {MANIFEST}
        for name in sorted(found ^ set(manifest.files)):
            return f"{name} is {'missing' if name in manifest.files else 'not its own'}"
        for name, record in manifest.files.items():
            if (path / name).stat().st_size != record.size_bytes or hash_file(path / name) != record.sha256:
                return f"{name} is damaged (SHA-256 is not {record.sha256[:12]})"
        return None

    def _set_aside(self, path: Path, reason: str) -> Path:
        attempt = 1
        while (aside := path.with_name(f"damaged-{path.name}-{attempt}")).exists():
            attempt += 1
        path.rename(aside)
        (aside / "WHY").write_text(reason + "\n", encoding="utf-8")
        return aside
