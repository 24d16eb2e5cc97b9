"""What the command `compare` does: makes the rungs of the ladder on one corpus and sets them side by side."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import runs, stopping
from pipeline.artifact import Artifact, open_artifact, path_from, read_manifest
from pipeline.errors import UsageError
from pipeline.ladder.continuing import REPEATED_TOKENS, WRITTEN_TOKENS, prompt_of, written_by
from pipeline.ladder.making import SLOT, command_for, folder_of, make_rung
from pipeline.ladder.page import metric_beside, remarks_on, render
from pipeline.ladder.rungs import AWD_LSTM, KNESER_NEY, RUNGS, ULMFIT, Published, Rung, rungs_named
from pipeline.ladder.scoring import METRICS, headline
from pipeline.progress import Reporter
from pipeline.protocol import protocol_of
from pipeline.recipe import shipped_recipes
from pipeline.remembered import last_of
from pipeline.report.summary import with_protocol
from pipeline.runs import Plan, Request
from pipeline.settings import RUNNING_TEXT_KINDS
from pipeline.stage import Run, run_stage, run_stages, select
from pipeline.storage import write_durably
from pipeline.training.history import read_history

LAST_SHARED = "numericalize_corpus"
"""The stage whose output every rung reads."""
PAGE, FIGURES = "compare.html", "compare.json"
QUALITY = ("accuracy", "bits_per_character", "perplexity", "valid_loss", "macro_recall", "macro_f1", "log_loss")
CUSTODY = ("transductive", "validated_on", "trained_elsewhere")
"""What a model may have read of the test documents."""
COST = ("parameters", "train_s", "documents_per_s")


@dataclass(frozen=True)
class Compared:
    """What came out, and where it was written."""

    document: dict[str, Any]
    """The content of compare.json."""
    page: Path


def plan_on(name: str, source: str | None, home: Path) -> Plan:
    """The run that `name` means: one that was started below `home`, or else the recipe of that name, or a variant.

    Raises UsageError if it has several variants, InputError if there is none.
    """
    started = runs.existing(home)

    def request(called: str) -> Request:
        if called in shipped_recipes() and called not in started:
            return Request(recipe=called, source=source, home=home)
        return Request(run=called, source=source, home=home)

    known = [*started, *shipped_recipes()]
    for base in (base for base in known if name not in known and name.startswith(f"{base}-")):
        whole = runs.resolve(request(base))
        variant = next((whole.variant_of(run) for run in whole.runs if len(whole.runs) > 1 and run.name == name), None)
        if variant is not None:
            return runs.resolve(replace(request(base), variant=variant))
    if name not in shipped_recipes():
        runs.check_exists(name, home)
    plan = runs.resolve(request(name))
    if len(plan.runs) > 1:
        raise UsageError(
            f"{name} has {len(plan.runs)} variants.", f"Name one: {', '.join(run.name for run in plan.runs)}."
        )
    return plan


def compare(plan: Plan, rungs: Sequence[Rung], n_seeds: int, reporter: Reporter, *, force: bool = False) -> Compared:
    """Make every one of `rungs` with `n_seeds` seeds, what is sealed excepted, and write compare.json and its page.

    The seeds are that of the run and those that follow it. Raises what stages and trainings raise; Stopped with
    everything sealed that was done.
    """
    run = plan.runs[0]
    runs.remember(plan)
    for one_run, stages in plan.steps(select(None, LAST_SHARED)):
        run_stages(one_run, stages, reporter, force)
    rows = []
    for rung in rungs:
        alike = _is_given(run, rung) or rung.same_for_every_seed(run.recipe.train_classifier.labelled)
        seeds = [run.recipe.run.seed + i for i in range(1 if alike else n_seeds)]
        results = []
        for seed in seeds:
            stopping.check(f"compare, before {rung.name} with seed {seed},")
            results.append(_result(plan, rung, seed, reporter, force))
        rows.append(_row(rung, results, rung.published.get(run.recipe.prepare_corpus.kind)))
    document = {
        "on": run.name, "ids": results[0]["ids"], "command": command_for(run, [rung.name for rung in rungs], n_seeds),
        **_continued(run, rungs, rows), "rungs": rows,
    }
    folder = folder_of(run)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / FIGURES, json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    write_durably(folder / PAGE, render(document, FIGURES))
    return Compared(document, folder / PAGE)


def _is_given(run: Run, rung: Rung) -> bool:
    """True if the recipe's [inputs] name the model of `rung`: every seed would find the same."""
    slot = {AWD_LSTM: "lm", ULMFIT: "classifier"}.get(rung.name)
    return slot is not None and run.given(slot) is not None


def _result(plan: Plan, rung: Rung, seed: int, reporter: Reporter, force: bool) -> dict[str, Any]:
    """Make the rung; what is told of it."""
    run = plan.runs[0]
    if rung.name not in (AWD_LSTM, ULMFIT):
        made = make_rung(run, rung, seed, reporter, force=force)
        return _told(run, made, seed, dict(made.manifest.metrics))
    if seed != run.recipe.run.seed:
        run = _with_seed(plan, seed)
    stages = runs.needed(run, select("finetune_lm", "finetune_lm" if rung.name == AWD_LSTM else None))
    artifacts = [run_stage(run, stage, reporter, force) for stage in stages]
    last, trained = artifacts[-1], [a for a in artifacts if "parameters" in a.manifest.metrics]
    read, ids = last.manifest.inputs.get("ids"), read_manifest(run.path("ids"))
    if read is None or ids is None or read.fingerprint != ids.fingerprint:
        raise UsageError(
            f"{last.path} was not measured on the ids of {run.name}, so its figures cannot stand beside theirs.",
            f"Leave {AWD_LSTM} out of --rungs, or compare on a run that trains its own.",
        )
    metrics = dict(last.manifest.metrics)
    metrics["parameters"] = trained[-1].manifest.metrics["parameters"]
    if all("history.jsonl" in a.manifest.files for a in trained):  # packed ones do not say how long they learned
        metrics["train_s"] = round(
            sum(record["train_s"] for a in trained for record in read_history(a.file("history.jsonl"))), 3
        )
    if rung.name == ULMFIT:
        metrics |= headline(json.loads(last.file(METRICS).read_text(encoding="utf-8")))
    return _told(run, last, seed, metrics)


def _continued(run: Run, rungs: Sequence[Rung], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Add to `rows` what the language models among `rungs` write, of the first seed each; the prompt that they had."""
    writing = [
        (rung, row) for rung, row in zip(rungs, rows, strict=True)
        if rung.kind == "language model" and rung.name != KNESER_NEY
        and (rung.name != AWD_LSTM or run.recipe.run.direction == "fwd")  # backwards it writes what comes before
    ]
    if not writing:
        return {}
    prompt = prompt_of(open_artifact(run.path("ids"), "ids"))
    for rung, row in writing:
        stopping.check(f"compare, before {rung.name} writes,")
        artifact = open_artifact(run.home / row["seeds"][0]["artifact"], SLOT if rung.settings else "lm")
        written = written_by(rung, artifact, prompt, run.recipe.run.seed)
        row["written"] = {way: vars(text) for way, text in written.items()}
    return {"prompt": prompt, "continued_by_tokens": WRITTEN_TOKENS, "repeated_tokens": REPEATED_TOKENS}


def _with_seed(plan: Plan, seed: int) -> Run:
    """The run with another seed for its models, on the same corpus and ids: a run of its own, RUN-sSEED.

    UsageError if somebody made a run of that name, which reads no ids of another run.
    """
    given = (f"inputs.{slot}={json.dumps(str(plan.runs[0].path(slot)))}" for slot in ("corpus", "ids"))
    overrides = (*plan.request.overrides, f"run.seed={seed}", *given)
    other = runs.resolve(replace(plan.request, run=f"{plan.name}-s{seed}", overrides=overrides, source=None))
    before = last_of(other.request.home, other.name)
    if before is not None and not any(override.startswith("inputs.ids=") for override in before.set):
        raise UsageError(
            f"The run with seed {seed} would be called {other.name}, and there is a run of that name.",
            f"Compare with fewer --seeds, or rename data/{other.name} and models/{other.name}.",
        )
    runs.remember(other)
    return other.runs[0]


def _told(run: Run, artifact: Artifact, seed: int, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "seed": seed,
        "artifact": path_from(run.home, artifact.path),
        "fingerprint": artifact.manifest.fingerprint,
        "ids": artifact.manifest.inputs["ids"].fingerprint,
        **{name: metrics[name] for name in CUSTODY if name in metrics},
        **{name: metrics[name] for name in (*QUALITY, *COST) if name in metrics},
    }


def _row(rung: Rung, results: list[dict[str, Any]], published: Published | None) -> dict[str, Any]:
    names = [name for name in (*QUALITY, *COST) if all(name in result for result in results)]
    return {
        "rung": rung.name,
        "protocol": protocol_of(results[0]),
        **{name: results[0][name] for name in CUSTODY if name in results[0]},
        "about": rung.about,
        "source": rung.source,
        "seeds": results,
        "mean": {name: statistics.fmean(result[name] for result in results) for name in names},
        "deviation": {
            name: statistics.stdev([result[name] for result in results]) if len(results) > 1 else None
            for name in names
        },
        "published": None if published is None else vars(published) | {},
    }


def chosen_rungs(plan: Plan, names: Sequence[str] | None) -> list[Rung]:
    """The rungs called `names`; without, those that fit the corpus: classifiers if it has labels.

    Raises UsageError for a rung that is not there, and for language models beside classifiers.
    """
    if names is not None:
        chosen = rungs_named(names)
        if len({rung.kind for rung in chosen}) > 1:
            raise UsageError("Language models and classifiers share no figure.", "Compare them in two commands.")
        return chosen
    prepared = plan.runs[0].recipe.prepare_corpus
    without_labels = prepared.kind in ("human-numbers", *RUNNING_TEXT_KINDS)
    kind = "language model" if without_labels or prepared.label_column is None else "classifier"
    tokens = "letters" if plan.runs[0].recipe.tokenize_corpus.tokenizer == "char" else "words"
    return [rung for rung in RUNGS.values() if rung.kind == kind and rung.reads in (None, tokens)]


def table(document: dict[str, Any]) -> str:
    """The comparison as lines for a terminal."""
    second = "bits_per_character" if "bits_per_character" in document["rungs"][0]["mean"] else "macro_recall"
    speeds = ["documents/s"] if any("documents_per_s" in row["mean"] for row in document["rungs"]) else []
    notes = ["note"] if any(row["published"] is not None for row in document["rungs"]) else []
    rows = [["rung", "accuracy", *notes, second.replace("_", " "), "parameters", "training s", *speeds]]
    for row in document["rungs"]:
        mean, deviation, published = row["mean"], row["deviation"]["accuracy"], row["published"]
        rows.append([
            with_protocol(row["rung"], row),
            f"{mean['accuracy']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}"),
            *("" if published is None else f"{published['value']:g}{metric_beside(published)}" for _ in notes),
            f"{mean[second]:.3f}",
            f"{mean['parameters']:,.0f}",
            f"{mean['train_s']:,.1f}" if "train_s" in mean else "",
            *(f"{mean['documents_per_s']:,.0f}" if "documents_per_s" in mean else "" for _ in speeds),
        ])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
             for row in rows]
    remarks = [f"{row['rung']}: {remark}" for row in document["rungs"] for remark in remarks_on(row)]
    return "\n".join([*lines, *remarks, *_written_lines(document)])


def _written_lines(document: dict[str, Any]) -> list[str]:
    """What the rungs wrote, a line each with its line breaks as spaces."""
    lines = []
    for row in document["rungs"]:
        for way, written in row.get("written", {}).items():
            text = " ".join(written["text"].split())
            lines += ["", f"{row['rung']}, {way}, {100 * written['repeated']:.0f} % repeated: {text}"]
    return lines
