"""The model card of an exported folder: its metadata and its text, every figure out of a sealed manifest."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.artifact import Artifact, open_artifact, read_manifest
from pipeline.errors import InputError
from pipeline.export.hub import EvalResult, ModelCard, ModelCardData
from pipeline.plain_templates import rendered
from pipeline.protocol import protocol_of, what_was_read
from pipeline.report import evaluation_page, lineage
from pipeline.report.chain import START, START_CLASSIFIER, Link, chain_to, manifests
from pipeline.report.evaluation_page import escape, table
from pipeline.report.figures import Figure, Sources
from pipeline.storage import write_durably

_METRICS = "evaluation/metrics.json"
LIBRARY = "staged-ulmfit"
_TASKS = {"classifier": "text-classification", "lm": "text-generation"}
_WHAT = {
    "classifier": "A text classifier (ULMFiT): a language model of the AWD_LSTM architecture, fine-tuned, and a "
    "classifier trained on its encoder.",
    "lm": "A language model (ULMFiT) of the AWD_LSTM architecture.",
}
_DATA = {
    "imdb": ("IMDB film reviews", "stanfordnlp/imdb"),
    "rotten-tomatoes": ("Rotten Tomatoes review snippets", None),
    "human-numbers": ("numbers in English words", None),
    "nietzsche": ("a text by Nietzsche in English", None),
    "sentences": ("sentiment labelled sentences of Amazon, IMDB and Yelp reviews (UCI)", None),
    "names": ("surnames of 18 languages", None),
    "bow-languages": ("a few English and Spanish sentences", None),
}
"""By kind of corpus: its name, and its address on the Hub if it is the same there."""
_DIRECTIONS = {"fwd": "forwards", "bwd": "backwards"}


@dataclass(frozen=True)
class CardRequest:
    """What no manifest knows."""

    name: str
    """Of the model, as the page is headed."""
    license: str = "unknown"
    """An identifier that the Hub knows, such as apache-2.0."""
    language: str | None = None
    """Code of the language; None: that of the word tokenizer, if there is one."""


def find_evaluation(classifier: Artifact, folder: Path | None) -> Artifact | None:
    """The evaluation of `classifier`: the one in `folder`, else the one beside it that scored it, if there is one.

    What lies beside it may be anything. Raises InputError if `folder` holds none, or that of another classifier.
    """
    fingerprint = classifier.manifest.fingerprint
    if folder is not None:
        evaluation = open_artifact(folder, "evaluation")
        scored = evaluation.manifest.inputs["classifier"]
        if scored.fingerprint != fingerprint:
            raise InputError(
                f"{folder} scored classifier {scored.fingerprint[:12]} ({scored.path}), {classifier.path} is "
                f"{fingerprint[:12]}.",
                "Name its own --evaluation, or make one: python -m pipeline evaluate_classifier --run RUN",
            )
        return evaluation
    beside = classifier.path.absolute().parent / "evaluation"
    try:
        manifest = read_manifest(beside)
    except InputError:
        return None
    if manifest is None or manifest.slot != "evaluation" or manifest.inputs["classifier"].fingerprint != fingerprint:
        return None
    return open_artifact(beside, "evaluation")


def write_packed_card(
    folder: Path, packed_from: Sequence[Path], request: CardRequest, home: Path, *, force: bool = False
) -> None:
    """Write README.md of a folder of packed models: the card of a classifier, else of a language model.

    If there is an evaluation among `packed_from`, it is the card of the classifier that this one scored, and has its
    results. Raises InputError if there is no model, if the evaluation is of none of them, and for another README.md
    without `force`.
    """
    found = [path.parent for slot in _WHAT for path in sorted(folder.glob(f"{slot}-*/manifest.json"))]
    if not found:
        raise InputError(f"{folder} has no packed model.", "Name models to pack before the evaluation.")
    models = [open_artifact(path, path.name.rpartition("-")[0]) for path in found]
    model, evaluation = models[0], None
    for path in packed_from:
        manifest = read_manifest(path)
        if manifest is not None and manifest.slot == "evaluation":
            evaluation = open_artifact(path, "evaluation")
            scored = manifest.inputs["classifier"]
            of_it = next((packed for packed in models if packed.manifest.fingerprint == scored.fingerprint), None)
            if of_it is None:
                again = f"evaluate_classifier --run RUN --set inputs.classifier={models[0].path}"
                raise InputError(
                    f"{path} scored classifier {scored.fingerprint[:12]} ({scored.path}), none of those packed.",
                    f"Score a packed one, and name that evaluation: python -m pipeline {again}",
                )
            model = of_it
    card, page = str(model_card(model, evaluation, request, home, packed=models)), folder / "README.md"
    if page.exists() and not force and page.read_text(encoding="utf-8") != card:
        raise InputError(f"{page} is there already and holds something else.", "Replace it with --force.")
    write_durably(page, card)


def storage_of(model: Artifact) -> str:
    """What the large matrices of a model are stored in: float32, or what `pack` made of it."""
    storage: str = model.manifest.metrics.get("storage", "float32")
    return storage


def model_card(
    model: Artifact, evaluation: Artifact | None, request: CardRequest, home: Path, packed: Sequence[Artifact] = ()
) -> ModelCard:
    """The card of a classifier or language model; what it was made of is looked up below `home`.

    `packed` are all models of a folder that is not the Hub's: the card then says how those are used.
    """
    behind = chain_to(evaluation or model, home)
    elsewhere = evaluation is not None and lineage.scored_elsewhere(model, evaluation)
    chain = chain_to(model, home) if elsewhere else behind
    known = {link.fingerprint for link in chain}
    sources = Sources({f"{role}/manifest.json": text for role, text in manifests(chain).items()} | _metrics(evaluation))
    about = _About(model, sources, behind if elsewhere else None)
    data = ModelCardData(
        language=request.language or about.language, license=request.license, library_name=LIBRARY,
        pipeline_tag=_TASKS[about.slot], tags=["ulmfit", "awd-lstm"], model_name=request.name,
        datasets=[about.on_hub] if about.on_hub else None, metrics=["accuracy", "f1"] if evaluation else None,
        eval_results=list(about.eval_results()) or None,
    )
    text = rendered(
        "pipeline.export", "pages",
        "model_card.md", name=escape(request.name), version=__version__, what=_WHAT[about.slot], **about.values(),
        storage=storage_of(model),
        lineage=[
            [link.role, f"`{link.fingerprint[:12]}`", *(
                [link.manifest.stage, link.manifest.created[:10]] if link.manifest else ["not at hand", ""]
            )]
            for link in [*chain, *(link for link in behind if link.fingerprint not in known)]
        ],
        packed=[
            {"folder": artifact.path.name, "storage": storage_of(artifact),
             "files": {name: record.sha256 for name, record in artifact.manifest.files.items()
                       if name.endswith(".safetensors")}}
            for artifact in packed
        ],
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def _corpus_kind(links: Sequence[Link]) -> str | None:
    """The kind of the corpus among `links`, if there is one that is at hand."""
    found = next((link.manifest for link in links if link.role == "corpus"), None)
    return None if found is None else str(found.settings["prepare_corpus"]["kind"])


def _metrics(evaluation: Artifact | None) -> dict[str, Any]:
    if evaluation is None:
        return {}
    return {_METRICS: json.loads(evaluation.file("metrics.json").read_text(encoding="utf-8"))}


class _About:
    """What the manifests say of one model."""

    def __init__(self, model: Artifact, sources: Sources, scored: Sequence[Link] | None) -> None:
        """`scored`: what its evaluation was made of, if that is another corpus than the one it was made of."""
        self._model, self._sources = model, sources
        self.slot = model.manifest.slot
        self._tokenizer: dict[str, Any] = _read(model, "tokenizer/tokenizer.json")
        kind = sources.get("corpus/manifest.json", "settings", "prepare_corpus", "kind")
        self._data, self.on_hub = _named(kind)
        self._elsewhere = scored is not None
        self._scored, self._scored_on_hub = _named(_corpus_kind(scored)) if scored else (self._data, self.on_hub)

    @property
    def language(self) -> str | None:
        """Of the word tokenizer; pieces and characters do not tell."""
        return self._tokenizer.get("language")

    def eval_results(self) -> Iterator[EvalResult]:
        """The results for the Hub's tables, with the protocol in their names."""
        metrics = self._sources.documents.get(_METRICS)
        if metrics is None:
            return
        protocol = protocol_of(metrics["protocol"])
        for kind, name, key in (("accuracy", "Accuracy", "accuracy"), ("f1", "Macro F1", "macro_f1")):
            yield EvalResult(
                task_type=_TASKS[self.slot], dataset_type=self._scored_on_hub or "own", dataset_name=self._scored,
                dataset_split="test", dataset_args={"documents": metrics["test_documents"]}, metric_type=kind,
                metric_name=f"{name} ({protocol} protocol)", metric_value=metrics[key],
            )

    def values(self) -> dict[str, Any]:
        """What the page shows, by name; escaped for Markdown."""
        sizes, classifier = _read(self._model, "architecture.json"), self.slot == "classifier"
        direction = self._model.manifest.identity["direction"]
        return {
            "direction": _DIRECTIONS[direction], "tokenizer": escape(str(self._tokenizer["kind"])),
            "vocabulary": f"{sizes['vocabulary_size']:,}", **{k: sizes[k] for k in ("emb_sz", "n_hid", "n_layers")},
            "labels": [escape(label) for label in _read(self._model, "labels.json")] if classifier else [],
            "results": list(self._results()), "perplexity": self._perplexity(), "measured": self._measured(),
            "use": self._use(), "limits": list(self._limits()), "training": self._training(),
            "target": f"models/NAME/{self.slot}-{direction}",
            "parts": sorted(Path(name).stem for name in self._model.manifest.files if name.endswith(".safetensors")),
        }

    def _results(self) -> Iterator[str]:
        metrics = self._sources.documents.get(_METRICS)
        if metrics is None:
            return
        yield evaluation_page.headline(metrics)
        yield from (f"> **Note.** {warning}" for warning in evaluation_page.warnings(metrics))
        yield evaluation_page.comparison(metrics)
        yield evaluation_page.classes(metrics)
        yield evaluation_page.split_protocol(metrics["protocol"])

    def _perplexity(self) -> str | None:
        perplexity = self._model.manifest.metrics.get("perplexity")
        return None if perplexity is None else f"{perplexity:,.2f}"

    def _measured(self) -> str:
        if self._elsewhere:
            return f"on documents other than those it was trained on ({escape(self._scored)})"
        return f"on documents like those it was trained on ({escape(self._data)}), and on no others"

    def _use(self) -> str:
        data = escape(self._data)
        if self.slot == "classifier":
            return f"Sorting texts like its training documents ({data}) into its classes, where people can correct it."
        return f"Starting other models from, and continuing texts like its training documents ({data})."

    def _limits(self) -> Iterator[str]:
        read = what_was_read(self._model.manifest.metrics)
        if read:
            yield f"Its results are not those of unseen documents: {', and '.join(read)}."
        if self.slot == "classifier":
            head = _read(self._model, "head.json")
            yield (
                f"Of a document of more than {head['max_len']:,} tokens all is read, but only the last part is pooled."
            )
        share = self._sources.get("ids/manifest.json", "metrics", "unknown_share", "valid")
        if share:
            yield f"{100 * share:.3g} % of the tokens of the validation documents are not in its vocabulary."

    def _training(self) -> str:
        """What each stage did, as a table."""
        figure = self._sources.figure
        rows: list[tuple[str, Figure]] = []
        for split in ("train", "unlabelled", "valid", "test"):
            count = figure("corpus/manifest.json", "metrics", "documents", split, form="count")
            rows.append((f"documents, {split}", count))
        models = {
            START: "start of the language model", "lm": "language model", START_CLASSIFIER: "start of the classifier",
            "classifier": "classifier",
        }
        for role, what in models.items():
            source = f"{role}/manifest.json"
            rows += [
                (f"{what}, epochs", figure(source, "metrics", "epochs")),
                (f"{what}, perplexity on validation", figure(source, "metrics", "perplexity", form="fixed2")),
                (f"{what}, parameters", figure(source, "metrics", "parameters", form="count")),
                (f"{what}, precision", figure(source, "precision", "effective")),
                (f"{what}, device", figure(source, "device")),
            ]
        shown = [
            [name, escape(found.text) if isinstance(found.value, str) else found.text]
            for name, found in rows if found.value is not None
        ]
        return table(["", ""], shown) if shown else "What it was made of was not at hand."


def _named(kind: str | None) -> tuple[str, str | None]:
    return _DATA.get(kind or "", (f"a {kind} of its maker's own" if kind else "not at hand", None))


def _read(model: Artifact, name: str) -> Any:
    return json.loads(model.file(name).read_text(encoding="utf-8"))
