"""The command `export --to huggingface`: a sealed model as a folder of the form in which the Hub keeps models.

The weights lie in one file, model.safetensors, the tensors of NAME.safetensors called NAME.*; all other files of the
artifact lie beside it as they are, its manifest among them, so that `import-huggingface` restores the artifact itself.
config.json and README.md are for the Hub and its readers. torch reads the weights: numpy has no bfloat16 of its own.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import __version__
from pipeline.artifact import MANIFEST, Artifact
from pipeline.export.card import LIBRARY, CardRequest, model_card, storage_of
from pipeline.export.placing import COMMAND, placed
from pipeline.progress import Reporter

MODEL, CONFIG, README = "model.safetensors", "config.json", "README.md"
WEIGHTS_SUFFIX = ".safetensors"
_ARCHITECTURES = {"classifier": "ULMFiTClassifier", "lm": "AWDLSTMLanguageModel"}
_DTYPES = {"float32": "float32", "bf16": "bfloat16", "int8": "int8"}
"""What the Hub calls the type that the large matrices are stored in."""


def export_huggingface(
    model: Artifact, evaluation: Artifact | None, output: Path, card: CardRequest, reporter: Reporter, *,
    home: Path = Path(), force: bool = False,
) -> None:
    """Write the folder `output`: each file complete or absent, README.md last.

    Raises InputError for what is in the way, StorageError.
    """
    with placed(output, force=force, alone=True, last=README) as work:
        tensors: dict[str, Tensor] = {}
        for name in model.manifest.files:
            if name.endswith(WEIGHTS_SUFFIX):
                part = name.removesuffix(WEIGHTS_SUFFIX)
                tensors |= {f"{part}.{key}": tensor for key, tensor in load_file(model.file(name)).items()}
            else:
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(model.file(name), work / name)
        shutil.copyfile(model.path / MANIFEST, work / MANIFEST)
        save_file(tensors, work / MODEL, {"format": "pt"})
        _write_json(work / CONFIG, config(model))
        model_card(model, evaluation, card, home).save(work / README)
    scored = f"results of {evaluation.path}" if evaluation else "no results, since there is no evaluation beside it"
    reporter.line(f"{COMMAND}: {model.path} written to {output}; its card has {scored}")


def config(model: Artifact) -> dict[str, Any]:
    """What config.json says: kind of model, sizes, classes, direction and where it comes from."""
    slot, manifest = model.manifest.slot, model.manifest

    def read(name: str) -> Any:
        return json.loads(model.file(name).read_text(encoding="utf-8"))

    found: dict[str, Any] = {
        "model_type": LIBRARY, "architectures": [_ARCHITECTURES[slot]], "library_version": __version__,
        "direction": manifest.identity["direction"], "tokenizer": read("tokenizer/tokenizer.json")["kind"],
        **read("architecture.json"), "dtype": _DTYPES[storage_of(model)],
    }
    if slot == "classifier":
        labels = read("labels.json")
        found |= read("head.json") | {
            "id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)},
        }
    lineage = {slot: manifest.fingerprint, **{name: record.fingerprint for name, record in manifest.inputs.items()}}
    return found | {"lineage": lineage, "identity": manifest.identity}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
