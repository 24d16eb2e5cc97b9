"""Stage modules small enough to try the stage contract itself."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import pytest

from pipeline.corpus.source import locate
from pipeline.making import StageOutcome
from pipeline.stage import ENSEMBLE, STAGE_NAMES, StageContext

METRICS: dict[str, dict[str, object]] = {
    "prepare_corpus": {"documents": {"train": 1200, "test": 34}},
    "finetune_lm": {"perplexity": 30.5, "accuracy": 0.25, "bits_per_character": 1.5},
    "evaluate_classifier": {
        "accuracy": 0.8, "accuracy_low": 0.79, "accuracy_high": 0.81, "majority_accuracy": 0.58,
        "test_documents": 2500, "transductive": False,
        "baseline": {"name": "TF-IDF", "accuracy": 0.77, "accuracy_low": 0.75, "accuracy_high": 0.79},
    },
    "evaluate_ensemble": {
        "accuracy": 0.82, "accuracy_low": 0.81, "accuracy_high": 0.83, "majority_accuracy": 0.58,
        "test_documents": 2500, "transductive": False, "best_member": "word",
        "members": {"word": {"accuracy": 0.8, "accuracy_low": 0.79, "accuracy_high": 0.81, "mcnemar_p": 0.03}},
    },
}
"""What the stages report that the result table reads."""


@dataclass
class TinyStages:
    """All six stages and the ensemble; each writes its name, its settings and what it read."""

    calls: list[tuple[str, bool]] = field(default_factory=list)
    """(stage, resuming) of every stage that really ran."""
    act: dict[str, Callable[[StageContext], object]] = field(default_factory=dict)
    """What a stage does before it writes its output."""

    @classmethod
    def in_place(cls, monkeypatch: pytest.MonkeyPatch) -> "TinyStages":
        """Put tiny stages where `run_stage` looks for the real ones."""
        stages = cls()
        for name in (*STAGE_NAMES, ENSEMBLE.name):
            monkeypatch.setitem(sys.modules, f"pipeline.stages.{name}", stages._module(name))
        return stages

    @property
    def ran(self) -> list[str]:
        """Names of the stages that ran since the last look."""
        names = [name for name, _ in self.calls]
        self.calls.clear()
        return names

    def _module(self, name: str) -> ModuleType:
        def run(context: StageContext) -> StageOutcome:
            self.calls.append((name, context.resuming))
            if name in self.act:
                self.act[name](context)
            read = {slot: a.file("payload.json").read_text(encoding="utf-8") for slot, a in context.inputs.items()}
            payload = json.dumps([name, context.settings.model_dump(mode="json"), read])
            (context.work / "payload.json").write_text(payload, encoding="utf-8")
            metrics = {"size_bytes": len(payload), "undefined": float("nan"), **METRICS.get(name, {})}
            return StageOutcome(metrics, _identity(context))

        module = ModuleType(f"pipeline.stages.{name}")
        vars(module).update(run=run, locate_source=locate)
        return module


def _identity(context: StageContext) -> dict[str, str]:
    """What ties the artifacts of one run together."""
    identity = {}
    if "corpus" in context.inputs:
        identity["corpus"] = context.inputs["corpus"].manifest.fingerprint
    for slot in ("tokens", "ids", "lm"):
        if slot in context.inputs:
            identity |= context.inputs[slot].manifest.identity
    if "ids" in context.inputs:
        identity["direction"] = context.recipe.run.direction
    return identity
