"""The command `export --to onnx`: a sealed classifier as a folder that needs onnxruntime and a tokenizer, not torch."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from pipeline import __version__
from pipeline.artifact import Artifact
from pipeline.export.onnx_graph import classifier_graph
from pipeline.export.parity import compare, find_sample
from pipeline.export.placing import COMMAND, placed
from pipeline.inference.bundle import load_classifier_bundle
from pipeline.inference.inputs import TEXT_COLUMN
from pipeline.plain_templates import rendered
from pipeline.progress import Reporter
from pipeline.protocol import protocol_of
from pipeline.report import evaluation_page
from pipeline.report.summary import aligned, percent
from pipeline.settings import RunSettings

README, PARITY = "README.md", "parity.json"
FILES = {"float32": "model.onnx", "int8": "model-int8.onnx"}
_WHAT = {"float32": "the classifier, float32", "int8": "the same with 8-bit weights"}
_BESIDE = ("labels.json", "vocabulary.json")
_FLOAT32 = RunSettings(precision="fp32", device="cpu")


@dataclass(frozen=True)
class OnnxRequest:
    """What was asked for on the command line."""

    output: Path
    documents: int
    """At most so many are compared."""
    int8: bool = False
    texts: Path | None = None
    """A file of texts to compare with."""
    text_column: str = TEXT_COLUMN
    """Where they stand, if that is a table."""
    split: str = "valid"
    """Else the labelled documents of this split of the run."""
    home: Path = Path()
    force: bool = False


def export_onnx(classifier: Artifact, request: OnnxRequest, reporter: Reporter) -> dict[str, Any]:
    """Write the folder; returns what its parity.json holds.

    Raises InputError for what is in the way, for texts that cannot be read, and if onnxruntime does not give our
    probabilities; StorageError.
    """
    bundle = load_classifier_bundle(classifier.path, _FLOAT32)
    sample = find_sample(
        bundle, classifier, request.home, texts=request.texts, text_column=request.text_column, split=request.split,
        n=request.documents,
    )
    with placed(request.output, force=request.force, alone=True, last=README) as work:
        models = {"float32": work / FILES["float32"]}
        onnx.save(classifier_graph(classifier.path, bundle.classifier.direction), models["float32"])
        if request.int8:
            models["int8"] = work / FILES["int8"]
            _quantize(models["float32"], models["int8"])
        for name in (*_BESIDE, *(name for name in classifier.manifest.files if name.startswith("tokenizer/"))):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(classifier.file(name), work / name)  # not its mode: a model may be read-only
        weights = [classifier.file(f"{part}.safetensors") for part in ("encoder", "head")]
        parity = compare(bundle, weights, models, sample, reporter)
        parity["classifier"] = classifier.manifest.fingerprint
        (work / PARITY).write_text(json.dumps(parity, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        (work / README).write_text(_readme(classifier, bundle.labels, parity), encoding="utf-8")
    reporter.line(f"{COMMAND}: {classifier.path} written to {request.output}")
    return parity


def _quantize(model: Path, into: Path) -> None:
    """8-bit weights of the embedding and the LSTM layers; the head, as small as it is, stays float32 as it does in
    our own half precision."""
    prepared = into.with_suffix(".prepared")
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_dynamic(
        prepared, into, op_types_to_quantize=["LSTM", "Gather"], per_channel=True, weight_type=QuantType.QInt8
    )
    prepared.unlink()


def describe(parity: dict[str, Any]) -> str:
    """The comparison for a terminal."""
    lines = aligned(_table(parity))
    return "\n".join([f"{parity['documents']:,} documents, {parity['sample']}; {parity['threads']} thread(s)", *lines])


def _table(parity: dict[str, Any]) -> list[list[str]]:
    header = ["", "MB", "documents/s", "accuracy", "equal labels", "largest difference", "mean difference"]
    return [
        header,
        *([
            name, f"{side['size_mb']:,.2f}", f"{side['documents_per_s']:,.1f}",
            percent(side["accuracy"]) if "accuracy" in side else "",
            *([percent(side["equal_labels"]), f"{side['max_difference']:.2g}", f"{side['mean_difference']:.2g}"]
              if "equal_labels" in side else [""] * 3),
        ] for name, side in parity["models"].items()),
    ]


def _readme(classifier: Artifact, labels: list[str], parity: dict[str, Any]) -> str:
    head = json.loads(classifier.file("head.json").read_text(encoding="utf-8"))
    header, *rows = _table(parity)
    backwards = classifier.manifest.identity["direction"] == "bwd"
    files = [(name, FILES[name], _WHAT[name]) for name in FILES if name in parity["models"]]
    return rendered(
        "pipeline.export", "pages",
        "onnx.md",
        version=__version__, fingerprint=classifier.manifest.fingerprint, files=files, labels=labels,
        protocol=protocol_of(classifier.manifest.metrics), parity=parity,
        comparison=evaluation_page.table(header, rows),
        sample=evaluation_page.escape(parity["sample"]), int8="int8" in parity["models"],
        direction_words="Reads backwards" if backwards else "Reads forwards",
        reversed=" (the graph turns it round)" if backwards else "",
        pooled=max(head["max_len"] // head["seq_len"], 1) * head["seq_len"],
    )
