"""Four real classifiers, word and subword, forwards and backwards, on one corpus, and their ensemble."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import call, manifest, write_reviews

MEMBERS = ("word-fwd", "word-bwd", "subword-fwd", "subword-bwd")
QUICK = [
    "--set", "prepare_corpus.split_column=split", "--set", "run.device=cpu", "--set", "run.precision=fp32",
    "--set", "tokenize_corpus.workers=1", "--set", "finetune_lm.phases=[{name='a', lr=0.01}]",
    "--set", "train_classifier.phases=[{name='a', lr=0.02, epochs=2}]",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the recipe `smoke-ensemble`: one command."""
    folder = tmp_path_factory.mktemp("ensemble")
    table = write_reviews(folder / "reviews.csv", n=160)
    call("run", "--recipe", "smoke-ensemble", "--source", str(table), "--home", str(folder), *QUICK)
    return folder


def test_the_members_differ_in_all_but_the_corpus(home: Path) -> None:
    found = [manifest(home / f"models/smoke-ensemble-{name}/evaluation")["identity"] for name in MEMBERS]
    assert len({identity["corpus"] for identity in found}) == 1
    assert len({identity["tokenizer"] for identity in found}) == 2
    assert [identity["direction"] for identity in found] == ["fwd", "bwd", "fwd", "bwd"]


def test_the_ensemble_is_made_of_what_the_members_predicted(home: Path) -> None:
    ensemble = home / "models/smoke-ensemble/ensemble"
    assert {slot: record["path"] for slot, record in manifest(ensemble)["inputs"].items()} == {
        f"member {name}": f"models/smoke-ensemble-{name}/evaluation" for name in MEMBERS
    }

    def probabilities(folder: Path) -> np.ndarray:
        table = pq.read_table(folder / "predictions.parquet")
        return np.stack([table["probability_bad"].to_numpy(), table["probability_good"].to_numpy()], axis=1)

    members = [probabilities(home / f"models/smoke-ensemble-{name}/evaluation") for name in MEMBERS]
    assert len({member.tobytes() for member in members}) == 4
    assert probabilities(ensemble) == pytest.approx(np.mean(members, axis=0), abs=1e-12)
    metrics = json.loads((ensemble / "metrics.json").read_text(encoding="utf-8"))
    assert [(m["name"], m["direction"], m["tokenizer"]) for m in metrics["members"]] == [
        (name, name.split("-")[1], name.split("-")[0]) for name in MEMBERS
    ]
    assert metrics["test_documents"] == 32


def test_nothing_runs_twice_and_status_shows_the_ensemble(home: Path) -> None:
    again = call("run", "--run", "smoke-ensemble", "--home", str(home))
    assert again.output.count("nothing changed") == 3 + 2 * 3 + 2 * 5 + 1  # those of words share tokens and ids
    stages = json.loads(call("status", "--run", "smoke-ensemble", "--home", str(home), "--json").stdout)["stages"]
    assert {s["state"] for s in stages} == {"sealed"}
    assert stages[-1]["stage"] == "evaluate_ensemble"
    assert set(stages[-1]["metrics"]["members"]) == set(MEMBERS)


def test_its_results_count_what_every_member_took(home: Path) -> None:
    (found,) = json.loads(call("results", "smoke-ensemble", "--home", str(home), "--json").stdout)
    made = [*home.glob("data/smoke-ensemble*/*"), *home.glob("models/smoke-ensemble*/*")]
    took: dict[str, list[float]] = {}
    for one in (manifest(folder) for folder in made if (folder / "manifest.json").exists()):
        took.setdefault(one["fingerprint"], []).append(one["wall_s"])
    assert len(took) == 1 + 2 * 2 + 4 * 3 + 1  # both directions have the same tokens and ids, which count once
    assert len(found["stages"]) == len(took)
    counted = sum(stage["wall_s"] for stage in found["stages"])
    assert sum(map(min, took.values())) <= counted + 1e-6
    assert counted <= sum(map(max, took.values())) + 1e-6
