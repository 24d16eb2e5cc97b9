"""The sections of a report on what was made: training, data, and every artifact behind it."""

from collections.abc import Iterator
from typing import Any

from pipeline.corpus.documents import SPLITS
from pipeline.report import charts
from pipeline.report.blocks import Block, Chart, Details, Line, Note, Prose, Section, Table
from pipeline.report.figures import Figure, Sources
from pipeline.report.gather import DERIVED, Material
from pipeline.report.results import language_model

TITLES = {"lm": "language model", "classifier": "classifier"}
_HISTORY_FORMS = {
    "epoch": "count", "lr": "general", "skipped_steps": "count", "train_s": "duration", "stopped_early": "plain",
}


def training(material: Material, role: str) -> Section:
    """Curves and history of one model."""
    sources, source = material.sources, f"{role}/history.jsonl"
    history, curve = sources.documents[source], material.curves.get(role, [])
    title = f"Training the {TITLES.get(role, role)}"
    blocks: list[Block] = [language_model(sources, role)] if role.startswith("lm") else []
    names = list(history[0])
    rows: list[list[Line]] = [
        [
            [sources.figure(source, i, "phase")],
            *([sources.figure(source, i, name, form=_history_form(name))] for name in names if name != "phase"),
        ]
        for i in range(len(history))
    ]
    blocks += [
        Chart(
            charts.training(role, curve, history, _phases(history)),
            f"Training and validation loss of the {TITLES.get(role, role)} by epoch"
            + (", and below them the learning rate." if curve else ".") + " Epochs are in the table that follows.",
            "Dotted lines are the borders of phases. " + (
                "The training line is the mean loss of a few steps, with dropout; validation has none." if curve else
                "The model was made before curves inside epochs were kept: the training line is of whole epochs."
            ),
        ),
        Details("Every epoch", [
            Table(["phase", *(name.replace("_", " ") for name in names if name != "phase")], rows)
        ]),
    ]
    return Section(f"training-{role}".replace("/", "-"), title, blocks)


def _history_form(name: str) -> str:
    return _HISTORY_FORMS.get(name) or ("rate" if name.endswith("_per_s") else "fixed4")


def _phases(history: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Phases and the epoch at which each begins."""
    found: list[tuple[str, float]] = []
    for record in history:
        if not found or found[-1][0] != record["phase"]:
            found.append((record["phase"], record["epoch"] - 1))
    return found


def data(material: Material) -> Section:
    """Sizes, duplicates, the tokenizer's coverage, unknown tokens, lengths."""
    return Section("data", "Data card", [*_corpus(material), *_text(material)])


def _corpus(material: Material) -> Iterator[Block]:
    sources, corpus = material.sources, "corpus/manifest.json"
    if corpus not in sources:
        return
    metrics = sources.documents[corpus]["metrics"]
    splits = [split for split in SPLITS if split in metrics["documents"]]
    labels = sorted({label for counts in metrics.get("labels", {}).values() for label in counts})
    shown = labels[:20]
    yield Table(
        ["split", "documents", *shown],
        [
            [
                [split], [sources.figure(corpus, "metrics", "documents", split, form="count")],
                *(
                    [sources.figure(corpus, "metrics", "labels", split, label, form="count", absent="none")]
                    for label in shown
                ),
            ]
            for split in splits
        ],
    )
    if len(labels) > len(shown):
        yield Prose(["The first classes only; all are in the corpus's manifest.json."])
    identity = ("source", "identity")
    yield Prose([
        "Source: ", sources.figure(corpus, *identity, "kind"), ", SHA-256 ",
        sources.figure(corpus, *identity, "sha256", form="hash"), ". ",
        sources.figure(corpus, "metrics", "characters", form="count"), " characters. Duplicates dropped: ",
        sources.figure(corpus, "metrics", "duplicates", "dropped", form="count"), "; copies left within splits: ",
        *_counts(sources, corpus, "metrics", "duplicates", "within"), "; texts that two splits share: ",
        *_counts(sources, corpus, "metrics", "duplicates", "across"), ". Cleaned: ",
        *_counts(sources, corpus, "metrics", "cleaned"), ".",
    ])


def _counts(sources: Sources, source: str, *path: str) -> Line:
    """`name 3, other 5`, of what is not 0."""
    found: list[str | Figure] = []
    for name, value in (sources.get(source, *path) or {}).items():
        if value:
            found += [", " if found else "", f"{name.replace('_', ' ')} ",
                      sources.figure(source, *path, name, form="count")]
    return found or ["none"]


def _text(material: Material) -> Iterator[Block]:
    sources, tokens, ids = material.sources, "tokens/manifest.json", "ids/manifest.json"
    if ids not in sources or DERIVED not in sources:
        return
    lengths = sources.get(DERIVED, "lengths") or {}
    yield Prose([
        "Tokenizer: ", sources.figure(tokens, "metrics", "tokenizer"), ", ",
        sources.figure(tokens, "metrics", "characters_per_token", form="fixed2"), " characters a token, ",
        sources.figure(tokens, "metrics", "types", form="count"), " distinct tokens. Vocabulary: ",
        sources.figure(ids, "metrics", "vocabulary", form="count"), " tokens.",
    ])
    yield Table(
        ["split", "tokens", "unknown tokens", "distinct tokens", "of these in the vocabulary"],
        [
            [
                [split], [sources.figure(ids, "metrics", "tokens", split, form="count")],
                [sources.figure(ids, "metrics", "unknown_share", split, form="share")],
                [sources.figure(DERIVED, "coverage", split, "types", form="count")],
                [sources.figure(DERIVED, "coverage", split, "in_vocabulary", form="percent")],
            ]
            for split in lengths
        ],
    )
    names = ("shortest", "quarter", "median", "three_quarters", "longest")
    yield Prose(["Tokens of a document, from the shortest to the longest:"])
    yield Table(
        ["split", "shortest", "a quarter below", "median", "three quarters below", "longest", "median characters"],
        [
            [
                [split],
                *([sources.figure(DERIVED, "lengths", split, "tokens", name, form="rate")] for name in names),
                [sources.figure(DERIVED, "lengths", split, "characters", "median", form="rate")],
            ]
            for split in lengths
        ],
    )


def lineage(material: Material) -> Section:
    """Every artifact: what it is, where from, with which settings, at what cost."""
    sources = material.sources
    rows: list[list[Line]] = []
    details: list[Block] = []
    for link in material.chain:
        source = material.manifest(link.role)
        cost: list[Line] = [
            [sources.figure(source, "wall_s", form="duration")],
            [sources.figure(source, "peak_memory_mb", form="megabytes")],
        ] if link.manifest is None or link.manifest.has_cost else [["packed"], ["packed"]]
        rows.append([
            [link.role], [sources.figure(DERIVED, "made_from", link.role, form="hash")],
            [sources.figure(source, "created", form="time")], *cost,
            [sources.figure(source, "precision", "effective")], [sources.figure(source, "device")],
            [sources.figure(source, "hardware")],
        ])
        if link.manifest is not None:
            details.append(_artifact(material, link.role))
        else:
            details.append(Note([f"{link.role} is not at its place any more, or was made anew since."]))
    return Section(
        "lineage", "Lineage",
        [
            Prose(["Each artifact names what it was made of by its fingerprint. All of them together took ",
                   sources.figure(DERIVED, "wall_s", form="duration"), "."]),
            Table(
                ["artifact", "fingerprint", "made (UTC)", "took", "peak memory", "arithmetic", "device", "hardware"],
                rows, numbers=False,
            ),
            *details,
        ],
    )


def _artifact(material: Material, role: str) -> Details:
    sources, source = material.sources, material.manifest(role)
    manifest = sources.documents[source]
    rows: list[list[Line]] = [
        [["stage"], [sources.figure(source, "stage"), ", version ", sources.figure(source, "code_version")]],
        [["fingerprint"], [sources.figure(source, "fingerprint")]],
        [["git commit"], [sources.figure(source, "git_commit"),
                          " with uncommitted changes" if manifest["git_dirty"] else ""]],
    ]
    for slot in manifest["inputs"]:
        rows.append([[f"made from {slot}"], [sources.figure(source, "inputs", slot, "fingerprint")]])
    for name in manifest["identity"]:
        rows.append([[f"identity: {name}"], [sources.figure(source, "identity", name)]])
    rows.append([["versions"], [
        part for name in manifest["versions"] for part in (f" {name} ", sources.figure(source, "versions", name))
    ]])
    settings: list[list[Line]] = [
        [[f"{section}.{key}"], [sources.figure(source, "settings", section, key, absent="none")]]
        for section, values in manifest["settings"].items() for key in values
    ]
    files: list[list[Line]] = [
        [[name], [sources.figure(source, "files", name, "size_bytes", form="bytes")],
         [sources.figure(source, "files", name, "sha256")]]
        for name in manifest["files"]
    ]
    return Details(f"{role}: settings, versions and files", [
        Table(["", "value"], rows, numbers=False), Table(["setting", "value"], settings, numbers=False),
        Table(["file", "size", "SHA-256"], files, numbers=False),
    ])
