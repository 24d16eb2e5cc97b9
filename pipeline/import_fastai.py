"""The command `import-fastai`: a language model saved by fastai becomes a sealed artifact of this project.

It is used like any other language model: as `inputs.start_lm` of a run, or as `inputs.lm` of train_classifier. fastai,
torch and spaCy are imported only when there is something to convert.
"""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import making
from pipeline.artifact import Artifact, Manifest, hash_file, hash_folder, hash_json
from pipeline.attempt import RESUME, partial_path
from pipeline.errors import InputError, PipelineError, UsageError
from pipeline.making import Order, StageOutcome
from pipeline.model import fastai_files
from pipeline.model.fastai_files import PUBLISHED, SavedModel
from pipeline.progress import Reporter
from pipeline.protocol import protocol_of
from pipeline.recipe import check_run_name
from pipeline.storage import place_of_folder

STAGE = "import_fastai"
"""What the manifest names as the maker."""
CODE_VERSION = 1
SLOT = "lm"


@dataclass(frozen=True)
class ImportRequest:
    """What to import. Files are named by path; `source` may also be one of `fastai_files.PUBLISHED`."""

    source: str
    """A published name (wt103-fwd, wt103-bwd), a .tgz, a folder with one .pth and one .pkl, or a .pth."""
    vocabulary: str | None = None
    """The itos*.pkl that belongs to a .pth."""
    local_copy: str | None = None
    """Where a published archive lies already; it is not downloaded then."""
    direction: str | None = None
    """fwd or bwd; None: as the names of the files tell."""
    language: str = "en"
    """spaCy language code of the word tokenizer the model was trained with."""
    transductive: bool = False
    """True if the model has read the text it will be tested on; every report after it says so."""

    def settings(self, direction: str) -> dict[str, Any]:
        """What shapes the output beside the files."""
        return {
            "direction": direction, "language": self.language, "rules": "fastai", "transductive": self.transductive
        }

    def named_paths(self) -> tuple[Path, Path | None]:
        """Absolute paths of the source, or of the copy of a published one, and of the vocabulary."""
        first = Path(self.local_copy or self.source).expanduser().absolute()
        return first, Path(self.vocabulary).expanduser().absolute() if self.vocabulary else None


@dataclass(frozen=True)
class _Source:
    """The files, what they are, and where they came from. No files: the sealed artifact has outlived them."""

    model: SavedModel | None
    identity: dict[str, Any]
    record: dict[str, Any]


def target_folder(request: ImportRequest, to: Path | None, run: str | None, home: Path) -> Path:
    """Where the model goes: the folder `to`, or where a run keeps its language model.

    A published model goes to the run of its name (wt103) by default. Raises UsageError if both or none are given, if
    `run` is no name, and as `direction_of` does.
    """
    if to is not None and run is not None:
        raise UsageError("--to and --run both say where the model goes.", "Give one of them.")
    if to is not None:
        return place_of_folder(to, "--to")
    if run is None and request.source not in PUBLISHED:
        raise UsageError("Nothing says where the model goes.", "Give --run NAME or --to FOLDER.")
    name = run if run is not None else request.source.partition("-")[0]
    check_run_name(name)
    return home / "models" / name / f"{SLOT}-{direction_of(request)}"


def use_of(lm: Artifact) -> str:
    """The command line that starts a run from an imported model, under a name that no recipe has."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", lm.path.parent.name)
    direction = lm.manifest.identity["direction"]
    settings = [f"inputs.start_lm={lm.path}", *(["run.direction=bwd"] if direction == "bwd" else [])]
    words = ["--run", f"from-{name}", *(word for setting in settings for word in ("--set", setting))]
    return shlex.join(["python", "-m", "pipeline", "run", *words])


def direction_of(request: ImportRequest) -> str:
    """The direction given, or told by the names of the files.

    Raises UsageError if there is none, or if a name contradicts the one given.
    """
    if request.direction not in (None, "fwd", "bwd"):
        raise UsageError(f"There is no direction {request.direction!r}.", "Give --direction fwd or --direction bwd.")
    path, vocabulary = request.named_paths()
    names = [request.source if request.source in PUBLISHED else path.name, *([vocabulary.name] if vocabulary else [])]
    told = {fastai_files.direction_in(name) for name in names} - {None}
    if not told and path.is_dir():
        told = {fastai_files.direction_in(file.name) for file in path.glob("*.pth")} - {None}
    if request.direction is None and len(told) != 1:
        raise UsageError(
            f"The name of {path} does not tell in which direction the model reads.",
            "Give --direction fwd or --direction bwd.",
        )
    direction = request.direction or str(told.pop())
    for name in names:
        fastai_files.require_direction(name, direction, path)
    return direction


def import_fastai(
    request: ImportRequest, target: Path, reporter: Reporter, *, home: Path = Path(), force: bool = False
) -> Artifact:
    """Make the language model `target` out of fastai's files, or find it sealed and unchanged.

    Downloads go to `home`/data/downloads. Raises UsageError for a request that cannot be right; InputError for files
    that are missing, damaged, hostile or no AWD_LSTM language model, and for another artifact at `target` without
    `force`; LockedError and StorageError as the stages do.
    """
    _check(request)
    direction = direction_of(request)
    with making.held(target, STAGE):
        return _import_locked(request, direction, target, reporter, home=home, force=force)


def _check(request: ImportRequest) -> None:
    if request.source in PUBLISHED and request.vocabulary is not None:
        raise UsageError(
            f"{request.source} holds its vocabulary; {request.vocabulary} cannot be added.", "Name one or the other."
        )
    if request.source not in PUBLISHED and request.local_copy is not None:
        raise UsageError(
            f"--source names a copy of a published archive, but {request.source} is a file.",
            f"Leave --source out, or name one of {', '.join(PUBLISHED)}.",
        )


def _import_locked(
    request: ImportRequest, direction: str, target: Path, reporter: Reporter, *, home: Path, force: bool
) -> Artifact:
    before = making.manifest_before(target, force)
    source = _locate(request, before, home, reporter)
    settings = request.settings(direction)
    fingerprint = hash_json(
        {"stage": STAGE, "code_version": CODE_VERSION, "settings": settings, "source": source.identity}
    )
    order = Order(
        target=target, slot=SLOT, stage=STAGE, code_version=CODE_VERSION, fingerprint=fingerprint,
        settings={STAGE: settings}, source={"identity": source.identity, **source.record},
    )
    found = making.unchanged(order, before, reporter, force)
    if found is not None:
        return found
    if before is not None and before.fingerprint != fingerprint and not force:
        raise InputError(
            f"{target} was made from something else: {_difference(before, settings)}.",
            "Replace it with --force, or choose another --run or --to.",
        )
    making.check_no_checkpoints(target, force, "--run or --to")
    model = source.model
    if model is None:
        raise InputError(f"{source.record['paths'][0]} is gone.", "Give the path of a copy.")
    shutil.rmtree(partial_path(target), ignore_errors=True)  # an import always starts over
    try:
        return making.make(order, lambda work, _: _convert(model, settings, work, reporter), reporter)
    except PipelineError:
        shutil.rmtree(partial_path(target), ignore_errors=True)  # what was refused is not kept
        raise


def _locate(request: ImportRequest, sealed: Manifest | None, home: Path, reporter: Reporter) -> _Source:
    """The files of `request`, downloaded if they have to be; an artifact sealed from the same needs them no more."""
    path, vocabulary = request.named_paths()
    paths = [str(p) for p in (path, vocabulary) if p is not None]
    name = request.source if request.source in PUBLISHED else None
    known = (sealed.source or {}) if sealed is not None and sealed.stage == STAGE else {}
    if name is not None and request.local_copy is None:
        if known.get("published") == name:
            return _Source(None, known["identity"], known)
        from pipeline.download import fetch

        path, _ = fetch([PUBLISHED[name]], home / "data" / "downloads", reporter)
        path = path.absolute()
        paths = [str(path)]
    elif paths == known.get("paths") and not all(Path(p).exists() for p in paths):
        return _Source(None, known["identity"], known)
    elif name is not None:
        fastai_files.check_published(name, path)
    model = fastai_files.locate(path, vocabulary)
    files = [{"sha256": hash_file(p), "size_bytes": p.stat().st_size} for p in model.paths]
    record = {"published": name, "paths": paths, "url": PUBLISHED[name].url if name else None}
    return _Source(model, {"kind": "fastai", "files": files}, record)


def _difference(manifest: Manifest, settings: dict[str, Any]) -> str:
    if manifest.stage != STAGE:
        return f"it is the {manifest.slot} of {manifest.stage}"
    before = manifest.settings[STAGE]
    changed = [f"{key} was {before.get(key)}, now {now}" for key, now in settings.items() if before.get(key) != now]
    if manifest.code_version != CODE_VERSION:
        changed.append(f"made by version {manifest.code_version} of {STAGE}, now {CODE_VERSION}")
    return "; ".join(changed) or "its files differ"


def _convert(saved: SavedModel, settings: dict[str, Any], work: Path, reporter: Reporter) -> StageOutcome:
    """Write the artifact's files into `work`."""
    from pipeline.model.fastai_weights import convert, read_weights
    from pipeline.model.pickled_strings import read_string_list
    from pipeline.model.weights import save_tensors
    from pipeline.text.tokenizer import save_tokenizer
    from pipeline.text.vocabulary import write_vocabulary
    from pipeline.text.word import WordTokenizer

    tokenizer = WordTokenizer(settings["language"], settings["rules"])
    try:
        tokenizer.load()
    except UsageError as error:
        raise UsageError(
            f"spaCy has no tokenizer for the language {settings['language']!r}.",
            "Give a code that it has, such as --language en.",
        ) from error
    weights, vocabulary = fastai_files.unpack(saved, work / RESUME, settings["direction"])
    model = convert(read_weights(weights), read_string_list(vocabulary), saved.paths[0])
    save_tensors(model.encoder, work / "encoder.safetensors")
    save_tensors(model.decoder, work / "decoder.safetensors")
    model.architecture.save(work / "architecture.json")
    write_vocabulary(work, model.vocabulary)
    save_tokenizer(tokenizer, work / "tokenizer")
    metrics = {
        "vocabulary": len(model.vocabulary),
        "parameters": sum(tensor.numel() for tensor in (*model.encoder.values(), *model.decoder.values())),
        "transductive": settings["transductive"],
        "protocol": protocol_of(settings),
        "started_from": None,
        **model.record,
    }
    _say(model.architecture, metrics, reporter)
    identity = {
        "tokenizer": hash_folder(work / "tokenizer"),
        "vocabulary": hash_json(model.vocabulary),
        "direction": settings["direction"],
        "architecture": model.architecture.hash(),
    }
    return StageOutcome(metrics, identity)


def _say(architecture: Any, metrics: dict[str, Any], reporter: Reporter) -> None:
    """What was found, and whatever was changed about it."""
    reporter.line(
        f"{STAGE}: vocabulary of {metrics['vocabulary']:,}, embedding {architecture.emb_sz}, hidden "
        f"{architecture.n_hid}, {architecture.n_layers} layers, {metrics['parameters']:,} parameters"
    )
    notes = {
        "special tokens given the mean row, for they are not in the vocabulary":
            ", ".join(metrics["special_tokens_added"]),
        "special tokens moved to this project's order": ", ".join(metrics["special_tokens_moved"]),
        "xxfake rows dropped": metrics["xxfake_dropped"],
        "rows of tokens listed twice dropped": metrics["repeated_tokens_dropped"],
        "numbers widened to float32 from": metrics["number_type"] if metrics["number_type"] != "float32" else "",
    }
    for note, value in notes.items():
        if value:
            reporter.line(f"{STAGE}: {note}: {value}")
    decoder = {
        "missing": "the file holds an encoder alone; its embedding serves as the decoder, without a bias",
        "separate": "the decoder's weights are not the embedding's; they stay separate",
    }
    if metrics["decoder"] in decoder:
        reporter.line(f"{STAGE}: {decoder[metrics['decoder']]}")
