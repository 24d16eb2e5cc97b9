"""The command `pack`: a copy of a sealed language model or classifier that is small enough to be given away.

Its weights are stored in fewer bits (`model.stored_tensors`), everything else is the same: what a packed model is used
for, fine-tuned or evaluated as, is what any other is. It names no machine and no folder of one. Neither does the copy
of an evaluation, which quotes no document: those are not ours to give away. torch is imported only when there is
something to write.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import making
from pipeline.artifact import PACK, Artifact, InputRecord, hash_json, open_artifact, read_manifest
from pipeline.attempt import partial_path
from pipeline.errors import InputError, UsageError
from pipeline.making import Order, StageOutcome
from pipeline.progress import Reporter

if TYPE_CHECKING:
    from pipeline.model.stored_tensors import Storage

CODE_VERSION = 3
SLOTS = ("lm", "classifier", "evaluation")
LEFT_OUT = ("history.csv", "history.jsonl", "curve.csv", "evaluation.md")
"""How training went, of which the manifest has the result, and a page whose figures metrics.json has."""
METRICS = "metrics.json"
_FOLDER_PARTS = 3
"""Of data/RUN/SLOT, which is how an input is named without the folder that a machine keeps it in."""


def packed_name(model: Path) -> str:
    """What a packed copy of `model` is called: its own name."""
    return model.name or model.resolve().name


def check_names(models: Sequence[Path]) -> None:
    """UsageError if copies of two of `models` would have one name."""
    for name, number in Counter(map(packed_name, models)).items():
        if number > 1:
            raise UsageError(
                f"{number} of the models are called {name}, and would be packed into one place.",
                "Pack each with an --output of its own.",
            )


def pack(model: Path, output: Path, storage: "Storage", reporter: Reporter, *, force: bool = False) -> Artifact:
    """Write the sealed `model` into the folder `output` under its own name, or find it there unchanged.

    Raises InputError if it is no sealed language model, classifier or evaluation, or packed already, and for another
    artifact in its place without `force`; UsageError if that would be the model itself; LockedError and StorageError
    as the stages do.
    """
    manifest = read_manifest(model)
    if manifest is None or manifest.slot not in SLOTS:
        what = f"holds {manifest.slot}" if manifest else "is not there"
        raise InputError(f"{model} {what}.", "Name a sealed model or evaluation, as models/RUN/lm-fwd.")
    whole = open_artifact(model, manifest.slot)
    if manifest.original is not None:
        raise InputError(f"{model} is packed already.", "Name the model it was packed from.")
    target = output / packed_name(model)
    if target.resolve() == model.resolve():
        raise UsageError(f"{target} is the model itself.", "Choose another --output.")
    settings = {"storage": storage, "of": manifest.fingerprint}
    order = Order(
        target=target, slot=manifest.slot, stage=PACK, code_version=CODE_VERSION,
        fingerprint=hash_json({"stage": PACK, "code_version": CODE_VERSION, "settings": settings}),
        settings={**manifest.settings, PACK: settings},
        inputs={slot: _without_place(record) for slot, record in manifest.inputs.items()}, anonymous=True,
    )
    with making.held(target, PACK):
        before = making.manifest_before(target, force)
        found = making.unchanged(order, before, reporter, force)
        if found is not None:
            return found
        if before is not None and not force:
            raise InputError(f"{target} was made from something else.", "Replace it with --force.")
        making.check_no_checkpoints(target, force, "--output")
        shutil.rmtree(partial_path(target), ignore_errors=True)  # packing always starts over
        return making.make(order, lambda work, _: _write(whole, work, storage), reporter)


def size_mb(artifact: Artifact) -> float:
    """Size of all files of an artifact in MB."""
    return sum(record.size_bytes for record in artifact.manifest.files.values()) / 1e6


def _write(whole: Artifact, work: Path, storage: "Storage") -> StageOutcome:
    from safetensors.torch import load_file, save_file

    from pipeline.model.stored_tensors import in_fewer_bits

    for name in whole.manifest.files:
        if name in LEFT_OUT:
            continue
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            save_file(in_fewer_bits(load_file(whole.path / name), storage), work / name)
        elif name == METRICS:
            (work / name).write_text(_without_quotes((whole.path / name).read_text(encoding="utf-8")), encoding="utf-8")
        else:
            shutil.copyfile(whole.path / name, work / name)
    manifest = whole.manifest
    metrics: dict[str, Any] = manifest.metrics
    if manifest.slot != "evaluation":
        metrics = {**metrics, "storage": storage}
    cost = manifest.wall_s, manifest.peak_memory_mb
    return StageOutcome(metrics, manifest.identity, manifest.device, manifest.hardware, manifest.precision, cost)


def _without_quotes(metrics: str) -> str:
    found = json.loads(metrics)
    for mistake in found["mistakes"]:
        del mistake["excerpt"]
    return json.dumps(found, ensure_ascii=False, indent=2) + "\n"


def _without_place(record: InputRecord) -> InputRecord:
    parts = Path(record.path).parts
    kept = 1 if parts[0] in ("..", "/") else _FOLDER_PARTS  # outside the home the folders are the machine's own
    return record.model_copy(update={"path": "/".join(parts[-kept:])})
