"""The command `import-huggingface`: a folder that `export --to huggingface` wrote becomes the sealed artifact again.

The same artifact, byte for byte: its manifest lies in the folder and has the SHA-256 of every file. What is named in a
manifest from elsewhere is not trusted: a name cannot lead out of the folder, and no file is taken that it does not fit.
"""

import shutil
import tempfile
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import artifact as artifacts
from pipeline import making
from pipeline.artifact import MANIFEST, Artifact, Manifest, hash_file, read_manifest
from pipeline.attempt import RESUME, open_partial
from pipeline.errors import InputError, UsageError
from pipeline.export.huggingface import MODEL, WEIGHTS_SUFFIX
from pipeline.progress import Reporter
from pipeline.recipe import check_run_name
from pipeline.storage import place_of_folder

COMMAND = "import-huggingface"
_SLOTS = ("classifier", "lm")
_WEIGHTS = {"encoder.safetensors", "decoder.safetensors", "head.safetensors"}
_MEND = "Download the folder again."


def restore(folder: Path, to: Path | None, run: str | None, home: Path, reporter: Reporter, *, force: bool) -> Artifact:
    """Make the artifact anew out of `folder`, at `to` or where `run` keeps such a model; one that is there already and
    the same is left.

    Raises UsageError if both or none are given, InputError for a folder that is not of this form, damaged or changed,
    and for another artifact in the place without `force`; LockedError, StorageError.
    """
    manifest = _manifest(folder)
    target = _target(manifest, to, run, home)
    if target.resolve() == folder.resolve():
        raise UsageError(f"{target} is the exported folder itself.", "Choose another --to.")
    with making.held(target, COMMAND):
        before = making.manifest_before(target, force)
        if before == manifest and not force:
            artifacts.verify_files(Artifact(target, manifest))
            reporter.line(f"{COMMAND}: nothing changed ({target})")
            return Artifact(target, manifest)
        if before is not None and not force:
            raise InputError(f"{target} holds another artifact.", "Replace it with --force, or name another place.")
        making.check_no_checkpoints(target, force, "--run or --to")
        work, _ = open_partial(target, manifest.fingerprint)
        try:
            _unpack(folder, manifest, work)
            sealed = artifacts.seal(target, manifest)
        except Exception:
            shutil.rmtree(work, ignore_errors=True)  # nobody can go on with it
            raise
    reporter.line(f"{COMMAND}: {manifest.slot} {manifest.fingerprint[:12]} restored ({target})")
    return sealed


def check(folder: Path) -> Manifest:
    """The manifest of `folder`; InputError if the model in it is not, byte for byte, the one that was exported."""
    manifest = _manifest(folder)
    with tempfile.TemporaryDirectory() as work:
        _unpack(folder, manifest, Path(work))
    return manifest


def _manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder) if (folder / MODEL).is_file() else None
    if manifest is None or manifest.slot not in _SLOTS:
        raise InputError(
            f"{folder} was not written by `export --to huggingface`: it has no {MODEL} with the {MANIFEST} of a model.",
            "Give the folder as it was downloaded.",
        )
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] in ("/", "//", MANIFEST, RESUME) or ".." in parts or "\\" in name:
            raise InputError(f"{folder / MANIFEST} names a file {name!r}, which no model has.", _MEND)
    if manifest.identity.get("direction") not in ("fwd", "bwd"):
        raise InputError(f"{folder / MANIFEST} does not say in which direction the model reads.", _MEND)
    return manifest


def _target(manifest: Manifest, to: Path | None, run: str | None, home: Path) -> Path:
    if (to is None) == (run is None):
        raise UsageError("Where the model goes is not said.", "Give --run NAME or --to FOLDER, one of them.")
    if to is not None:
        return place_of_folder(to, "--to")
    assert run is not None
    check_run_name(run)
    return home / "models" / run / f"{manifest.slot}-{manifest.identity['direction']}"


def _unpack(folder: Path, manifest: Manifest, work: Path) -> None:
    weights = {name for name in manifest.files if name.endswith(WEIGHTS_SUFFIX)}
    for name, tensors in _split(folder / MODEL, weights).items():
        save_file(tensors, work / name)
    for name, record in manifest.files.items():
        path = work / name
        if name not in weights:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, path)
            except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
                raise InputError(f"{folder / name} is missing.", _MEND) from None
        found = hash_file(path)
        if found != record.sha256:
            where = f"{name} in {folder / MODEL}" if name in weights else str(folder / name)
            raise InputError(
                f"{where} is not what was exported: SHA-256 {found[:12]}, the manifest says {record.sha256[:12]}.",
                _MEND,
            )


def _split(path: Path, names: set[str]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each file of weights."""
    if not names <= _WEIGHTS:
        raise InputError(f"{path.parent / MANIFEST} names weights of no model: {min(names - _WEIGHTS)}.", _MEND)
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in sorted(names)}
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}.", _MEND) from error
    for key, tensor in found.items():
        part, _, name = key.partition(".")
        if part + WEIGHTS_SUFFIX not in parts:
            raise InputError(f"{path} holds an unexpected tensor {key}.", _MEND)
        parts[part + WEIGHTS_SUFFIX][name] = tensor
    return parts
