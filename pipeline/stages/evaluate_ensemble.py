"""Average the predictions of several evaluated classifiers on the same test documents and score the average.

Reads sealed evaluations: their predictions are exact, so no classifier has to predict again, and members may differ in
tokenizer, vocabulary, direction and seed. Writes metrics.json (everything), predictions.parquet (one row per document)
and ensemble.md (for people).
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.making import StageOutcome
from pipeline.report import ensemble_page, metrics
from pipeline.report.members import Member, check_same_documents, load_member
from pipeline.report.predictions import FIGURES, headline, predictions_table
from pipeline.settings import EvaluateEnsembleSettings
from pipeline.stage import StageContext, member_name


def run(context: StageContext) -> StageOutcome:
    """Average the members' probabilities, each with the same weight, and write the ensemble.

    Raises InputError if two members do not have the same labels and test documents.
    """
    settings: EvaluateEnsembleSettings = context.settings
    members = [load_member(member_name(slot), evaluation) for slot, evaluation in context.inputs.items()]
    check_same_documents(members)
    first, labels = members[0], members[0].labels
    label_ids = first.label_ids
    # In the order of names, so that the sum does not depend on the order in which members are given.
    averaged = np.mean([m.probabilities for m in sorted(members, key=lambda m: m.name)], axis=0)
    probabilities = metrics.normalized(averaged)
    predicted = probabilities.argmax(axis=1)
    correct = predicted == label_ids
    # The best of them, where members looked at unlike numbers of labels: no easier opponent can be chosen.
    with_baseline = max(
        (m for m in members if m.baseline_ids is not None), key=lambda m: (m.metrics["baseline"]["accuracy"], m.name),
        default=None,
    )
    baseline_correct = None if with_baseline is None else with_baseline.baseline_correct
    result: dict[str, Any] = {
        **metrics.score(
            label_ids, probabilities, labels, bootstrap_samples=settings.bootstrap_samples,
            calibration_bins=settings.calibration_bins, seed=context.recipe.run.seed,
        ),
        **{key: first.metrics[key] for key in ("test_documents", "majority_label", "majority_accuracy")},
    }
    if with_baseline is not None and baseline_correct is not None:
        result["baseline"] = with_baseline.metrics["baseline"]
        result["mcnemar"] = metrics.mcnemar(correct, baseline_correct)
    best = max(members, key=lambda m: m.metrics["accuracy"])
    result |= {
        "members": [_about(m, correct, baseline_correct) for m in members],
        "best_member": best.name,
        "labels": labels,
        "protocol": _protocol(members),
        "lineage": {f"evaluation of {m.name}": m.fingerprint for m in members} | {"corpus": first.corpus},
        "bootstrap_samples": settings.bootstrap_samples,
        "seed": context.recipe.run.seed,
    }
    (context.work / "metrics.json").write_text(
        json.dumps(result, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    (context.work / "ensemble.md").write_text(ensemble_page.render(result), encoding="utf-8")
    table = predictions_table(
        first.doc_ids, label_ids, probabilities, labels, with_baseline.baseline_ids if with_baseline else None
    )
    names = np.asarray(labels, dtype=object)
    for member in members:
        table = table.append_column(f"predicted_by_{member.name}", pa.array(names[member.predicted_ids], pa.string()))
    pq.write_table(table, context.work / "predictions.parquet")
    return StageOutcome(ensemble_headline(result), {"corpus": first.corpus})


def ensemble_headline(result: dict[str, Any]) -> dict[str, Any]:
    """That of every evaluation, the best member's name, and what the result table says of each member."""
    members = {
        m["name"]: {
            **{k: m[k] for k in ("accuracy", "accuracy_low", "accuracy_high")}, "mcnemar_p": m["against_ensemble"]["p"]
        }
        for m in result["members"]
    }
    return headline(result) | {"best_member": result["best_member"], "members": members}


def _about(
    member: Member, ensemble_correct: metrics.Flags, baseline_correct: metrics.Flags | None
) -> dict[str, Any]:
    """A member's own figures, and McNemar's test of it against the ensemble and against the baseline."""
    correct = member.predicted_ids == member.label_ids
    ensemble_only, member_only, p = metrics.discordance(ensemble_correct, correct)
    against = {"only_ensemble_right": ensemble_only, "only_member_right": member_only, "p": p}
    return {
        "name": member.name,
        **member.metrics["classifier"],
        **{key: member.metrics[key] for key in FIGURES},
        **({} if baseline_correct is None else {"mcnemar": metrics.mcnemar(correct, baseline_correct)}),
        "against_ensemble": against,
    }


def _protocol(members: list[Member]) -> dict[str, Any]:
    """Who has read what: what one member has read, the ensemble has."""
    found = [m.metrics["protocol"] for m in members]
    read = [p.get("language_model_read") for p in found]
    return {
        **found[0],
        "transductive": any(p["transductive"] for p in found),
        "validated_on": "test" if any(p["validated_on"] == "test" for p in found) else "valid",
        "other_corpora": any(p.get("other_corpora", False) for p in found),
        "trained_elsewhere": any(p.get("trained_elsewhere", False) for p in found),
        "language_model_read": read[0] if all(other == read[0] for other in read) else None,
        "language_model_known": all(p["language_model_known"] for p in found),
        "classifier_trained_on_this_split": all(p["classifier_trained_on_this_split"] for p in found),
    }
