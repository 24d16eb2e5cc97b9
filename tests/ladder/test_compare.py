"""The command `compare`: rungs sealed one by one, made once, told as table, JSON and page."""

import io
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.artifact import read_manifest
from pipeline.cli import app
from pipeline.compare import FIGURES, PAGE, chosen_rungs, plan_on, table
from pipeline.errors import ExitCode, InputError, UsageError
from pipeline.ladder import rungs as ladder
from pipeline.ladder.making import make_rung
from pipeline.progress import Reporter

RUNGS = "kneser-ney,LMModel2,AWD_LSTM"


def call(*args: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run `t` on a text of three-word sentences, whose corpus and ids are not made yet."""
    home, rng = tmp_path_factory.mktemp("home"), random.Random(0)
    kinds = (["dogs", "cats", "birds", "fish"], ["chase", "like", "watch"], ["mice.", "people.", "trees."])
    sentences = [" ".join(rng.choice(words) for words in kinds) for _ in range(900)]
    paragraphs = "\n\n".join(" ".join(sentences[i : i + 6]) for i in range(0, 900, 6))
    (home / "text.txt").write_text(paragraphs, encoding="utf-8")
    call("run", "--recipe", "smoke", "--run", "t", "--until", "prepare_corpus", "--set",
         "prepare_corpus.kind=plain-text", "--source", str(home / "text.txt"), "--home", str(home))
    return home


def test_rungs_are_made_once_and_told(home: Path) -> None:
    first = call("compare", "--on", "t", "--rungs", RUNGS, "--seeds", "2", "--home", str(home))
    assert len(re.findall(r"^(LMModel2|finetune_lm|kneser-ney): sealed", first.stderr, re.MULTILINE)) == 5
    again = call("compare", "--on", "t", "--rungs", RUNGS, "--seeds", "2", "--home", str(home), "--json")
    assert "sealed in" not in again.stderr
    assert again.stderr.count("nothing changed") == 3 + 5

    document = json.loads(again.stdout)
    folder = home / "models" / "t" / "ladder"
    assert document == json.loads((folder / FIGURES).read_text(encoding="utf-8"))
    assert [(row["rung"], len(row["seeds"])) for row in document["rungs"]] == [
        ("kneser-ney", 1), ("LMModel2", 2), ("AWD_LSTM", 2),
    ]
    assert len({result["ids"] for row in document["rungs"] for result in row["seeds"]}) == 1
    for row in document["rungs"]:
        for result in row["seeds"]:
            manifest = json.loads((home / result["artifact"] / "manifest.json").read_text(encoding="utf-8"))
            assert manifest["metrics"]["accuracy"] == result["accuracy"]
        assert row["mean"]["accuracy"] == pytest.approx(
            sum(result["accuracy"] for result in row["seeds"]) / len(row["seeds"])
        )
        assert row["mean"]["parameters"] > 0
        assert row["published"] is None
    counted, learned, _ = document["rungs"]
    assert counted["mean"]["accuracy"] > 0.3
    assert counted["deviation"]["accuracy"] is None
    assert learned["seeds"][0]["valid_loss"] != learned["seeds"][1]["valid_loss"]
    lines = first.stdout.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["rung", *RUNGS.split(",")]
    assert "documents/s" not in lines[0]
    assert f"{learned['mean']['accuracy']:.4f} ± {learned['deviation']['accuracy']:.4f}" in lines[2]
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert document["command"] == f"python -m pipeline compare --on t --rungs {RUNGS} --seeds 2 --home {home}"
    assert f"The same again: {document['command']}" in page
    assert lines[-1] == f"page  {folder / PAGE}"
    for i, row in enumerate(document["rungs"]):
        shown = f'data-from="compare.json#/rungs/{i}/mean/accuracy">{row["mean"]["accuracy"]:.4f}<'
        assert shown in page
    assert "<svg" in page
    assert "written" not in counted
    assert document["prompt"].split()[0] in {"dogs", "cats", "birds", "fish"}
    for i, row in enumerate(document["rungs"][1:], 1):
        greedy, sampled = row["written"]["greedy"], row["written"]["sampled"]
        for written in (greedy, sampled):
            assert written["text"].startswith(document["prompt"])
            assert len(written["text"]) > len(document["prompt"]) + document["continued_by_tokens"] / 2
        assert sampled["repeated"] < greedy["repeated"] <= 1  # the most probable word again and again is a loop
        assert f'data-from="compare.json#/rungs/{i}/written/sampled/text">' in page
        assert any(line.startswith(f"{row['rung']}, sampled, ") for line in lines)


def test_a_text_that_is_too_short_for_n_grams_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("text,split\n" + "w1 w2 w3 w4 w5 w6 w7,train\n" * 30 + "w3,valid\n")
    call("run", "--recipe", "smoke", "--run", "v", "--source", str(tmp_path / "v.csv"), "--home", str(tmp_path),
         "--set", "prepare_corpus.label_column=none", "--set", "prepare_corpus.split_column=split",
         "--until", "numericalize_corpus")
    refused = call("compare", "--on", "v", "--rungs", "kneser-ney", "--home", str(tmp_path), exit_code=ExitCode.DATA)
    assert "kneser-ney counts 5 words of training text at least and predicts one of validation;" in refused.stderr


def test_another_seed_of_the_big_model_is_a_run_of_its_own(home: Path) -> None:
    seeds = json.loads((home / "models" / "t" / "ladder" / FIGURES).read_text(encoding="utf-8"))["rungs"][-1]["seeds"]
    assert [seed["artifact"] for seed in seeds] == ["models/t/lm-fwd", "models/t-s43/lm-fwd"]
    assert call("finetune_lm", "--run", "t-s43", "--home", str(home)).stderr.count("nothing changed") == 1


def test_a_run_that_has_the_name_of_another_seed_is_left_alone(home: Path) -> None:
    call("run", "--recipe", "smoke", "--run", "t-s44", "--until", "prepare_corpus", "--source", str(home / "text.txt"),
         "--set", "prepare_corpus.kind=plain-text", "--set", "run.seed=44", "--home", str(home))
    before = (home / "data/t-s44/run.json").read_text(encoding="utf-8")
    refused = call("compare", "--on", "t", "--rungs", "AWD_LSTM", "--seeds", "3", "--home", str(home),
                   exit_code=ExitCode.USAGE)
    assert "The run with seed 44 would be called t-s44, and there is a run of that name." in refused.stderr
    assert (home / "data/t-s44/run.json").read_text(encoding="utf-8") == before


def test_a_rung_of_other_ids_is_replaced_only_when_asked(home: Path) -> None:
    call("run", "--run", "t", "--until", "numericalize_corpus", "--set", "numericalize_corpus.max_vocab=14", "--force",
         "--home", str(home))
    refused = call("compare", "--on", "t", "--rungs", "LMModel2", "--home", str(home), exit_code=ExitCode.INPUT)
    assert "LMModel2-s42 was made of other ids, or with other settings of the rung." in refused.stderr
    assert f"python -m pipeline compare --on t --rungs LMModel2 --force --home {home}" in refused.stderr
    call("compare", "--on", "t", "--rungs", "LMModel2", "--force", "--home", str(home))
    vocabulary = json.loads((home / "models/t/ladder/LMModel2-s42/vocabulary.json").read_text(encoding="utf-8"))
    assert len(vocabulary) <= 14
    seeds = ("--seeds", "2", "--home", str(home))
    refused = call("compare", "--on", "t", "--rungs", "LMModel2", *seeds, exit_code=ExitCode.INPUT)
    assert "LMModel2-s43 was made of other ids" in refused.stderr
    assert "--rungs LMModel2 --seeds 2 --force" in refused.stderr
    call("compare", "--on", "t", "--rungs", "LMModel2", "--force", *seeds)
    call("compare", "--on", "t", "--rungs", "LMModel2", *seeds)


def test_what_is_no_run_and_no_recipe_is_refused(home: Path) -> None:
    with pytest.raises(InputError, match=r"There is no run 'nope' in .* Runs here: t"):
        plan_on("nope", None, home)
    with pytest.raises(UsageError, match=r"imdb-ensemble has \d variants\. Name one: imdb-ensemble-"):
        plan_on("imdb-ensemble", None, home)
    variant = plan_on("imdb-ensemble-bwd", None, home).runs
    assert [(run.name, run.recipe.run.direction) for run in variant] == [("imdb-ensemble-bwd", "bwd")]
    plan = plan_on("human-numbers", None, home)
    assert plan.runs[0].recipe.prepare_corpus.kind == "human-numbers"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run `r` of labelled sentences whose words tell their label."""
    home, rng = tmp_path_factory.mktemp("reviews"), random.Random(0)
    words = {"good": ["fine", "lovely", "warm"], "bad": ["dull", "poor", "cold"]}
    lines = ["text,label"]
    for i in range(200):
        label = ("good", "bad")[i % 2]
        lines.append(f"number {i} was a {rng.choice(words[label])} and {rng.choice(words[label])} film,{label}")
    (home / "reviews.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    call("run", "--recipe", "smoke", "--run", "r", "--until", "prepare_corpus", "--source", str(home / "reviews.csv"),
         "--home", str(home))
    return home


def test_classifiers_are_scored_on_test(reviews: Path) -> None:
    rungs = ["bag-of-words", "TF-IDF", "NB-SVM", "ULMFiT"]
    call("compare", "--on", "r", "--rungs", ",".join(rungs), "--seeds", "2", "--home", str(reviews))
    again = call("compare", "--on", "r", "--rungs", ",".join(rungs), "--seeds", "2", "--home", str(reviews), "--json")
    assert "sealed in" not in again.stderr
    rows = json.loads(again.stdout)["rungs"]
    assert [(row["rung"], len(row["seeds"])) for row in rows] == list(zip(rungs, (2, 1, 1, 2), strict=True))
    for row in rows[:3]:
        assert row["mean"]["accuracy"] == 1
    assert all(row["mean"]["documents_per_s"] > 0 for row in rows)
    shown = table(json.loads(again.stdout)).splitlines()
    assert shown[0].endswith("  documents/s")
    assert [line.split()[-1] for line in shown[1:]] == [f"{row['mean']['documents_per_s']:,.0f}" for row in rows]
    assert [seed["artifact"] for seed in rows[-1]["seeds"]] == ["models/r/evaluation", "models/r-s43/evaluation"]
    evaluation = json.loads((reviews / "models" / "r" / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    assert rows[-1]["seeds"][0]["macro_f1"] == evaluation["macro_f1"]
    assert rows[-1]["mean"]["parameters"] > 0
    assert rows[-1]["mean"]["train_s"] > 0
    for rung in ("bag-of-words-s42", "TF-IDF", "NB-SVM"):
        files = {path.name for path in (reviews / "models" / "r" / "ladder" / rung).iterdir()}
        assert {"weights.safetensors", "metrics.json", "predictions.parquet"} <= files


def test_a_rung_meant_for_fewer_documents_reads_them_less_often(reviews: Path) -> None:
    rung = ladder.RUNGS["bag-of-words"]
    assert isinstance(rung.settings, ladder.ClassifierSettings)
    rung = replace(rung, settings=rung.settings.model_copy(update={"documents": 36}))
    run = plan_on("r", None, reviews).runs[0]
    manifest = make_rung(run, rung, 7, Reporter(io.StringIO()), force=False).manifest
    assert manifest.metrics["train_documents"] == 144
    assert manifest.metrics["epochs"] == manifest.settings["ladder"]["phases"][0]["epochs"] == 5


def test_a_classifier_from_elsewhere_tells_no_time(reviews: Path) -> None:
    models, packed = reviews / "models" / "r", reviews / "packed"
    call("run", "--run", "r", "--home", str(reviews))
    call("pack", str(models / "lm-fwd"), str(models / "classifier-fwd"), "--output", str(packed))
    given = {"corpus": reviews / "data/r/corpus", "ids": reviews / "data/r/ids", "lm": packed / "lm-fwd",
             "classifier": packed / "classifier-fwd"}
    call("run", "--recipe", "smoke", "--run", "p", "--until", "numericalize_corpus", "--home", str(reviews),
         *(arg for slot, path in given.items() for arg in ("--set", f"inputs.{slot}={path}")))
    made = call("compare", "--on", "p", "--rungs", "TF-IDF,ULMFiT", "--seeds", "2", "--home", str(reviews))
    assert not re.search("^(finetune_lm|train_classifier): starting", made.stderr, re.MULTILINE)
    figures = json.loads((reviews / "models/p/ladder/compare.json").read_text(encoding="utf-8"))
    small, big = figures["rungs"]
    assert len(big["seeds"]) == 1  # every seed would find the same
    assert big["mean"]["parameters"] == read_manifest(models / "classifier-fwd").metrics["parameters"]
    assert big["mean"]["accuracy"] == read_manifest(models / "evaluation").metrics["accuracy"]
    assert "train_s" in small["mean"]
    assert "train_s" not in big["mean"]
    lines = table(figures).splitlines()
    assert lines[0].split()[:3] == ["rung", "accuracy", "macro"]  # no column for notes that there are not
    assert lines[-1].split()[0] == "ULMFiT"
    assert "its note" not in (reviews / "models/p/ladder/compare.html").read_text(encoding="utf-8")


def test_the_published_protocol_is_told(reviews: Path) -> None:
    call("run", "--run", "r", "--protocol", "published", "--home", str(reviews))
    found = call("compare", "--on", "r-published", "--rungs", "TF-IDF,ULMFiT", "--home", str(reviews)).stdout
    lines = found.splitlines()
    assert [line.split("  ")[0] for line in lines[1:3]] == ["TF-IDF", "ULMFiT (published protocol)"]
    assert lines[3].startswith("ULMFiT: Published protocol: the language model has read the test documents' text; the")
    models = reviews / "models/r-published"
    learned = [read_manifest(models / part).metrics["train_documents"] for part in ("ladder/TF-IDF", "classifier-fwd")]
    assert learned[0] == learned[1] > read_manifest(reviews / "models/r/classifier-fwd").metrics["train_documents"]
    page = (models / "ladder/compare.html").read_text(encoding="utf-8")
    assert "ULMFiT (published protocol)" in page
    assert "the epoch was chosen on the test documents" in page


def test_rungs_look_at_as_many_labels_as_the_runs_own_classifier(reviews: Path) -> None:
    few = ("--set", "train_classifier.labelled=60", "--set", "train_classifier.phases.1.epochs=1")
    given = (arg for slot in ("corpus", "ids", "lm") for arg in ("--set", f"inputs.{slot}={_of_r(reviews, slot)}"))
    call("run", "--recipe", "smoke", "--run", "few", "--home", str(reviews), *few, *given)
    call("compare", "--on", "few", "--rungs", "TF-IDF,MLP,ULMFiT", "--home", str(reviews))
    models = reviews / "models/few"
    n_labelled = read_manifest(models / "classifier-fwd").metrics["train_documents"]
    assert n_labelled < 60
    for rung in ("TF-IDF-s42", "MLP-s42"):
        assert read_manifest(models / "ladder" / rung).metrics["train_documents"] == n_labelled
    evaluation = read_manifest(models / "evaluation").metrics
    assert read_manifest(models / "ladder/TF-IDF-s42").metrics["accuracy"] == pytest.approx(
        evaluation["baseline"]["accuracy"], abs=0.1
    )
    drawn = call("compare", "--on", "few", "--rungs", "TF-IDF", "--seeds", "2", "--home", str(reviews), "--json").stdout
    assert [result["seed"] for result in json.loads(drawn)["rungs"][0]["seeds"]] == [42, 43]


def _of_r(home: Path, slot: str) -> Path:
    return home / ("models/r/lm-fwd" if slot == "lm" else f"data/r/{slot}")


def test_a_language_model_of_other_ids_does_not_stand_beside_the_rungs(home: Path) -> None:
    start = home / "models/t/lm-fwd"
    call("compare", "--on", "t", "--rungs", "AWD_LSTM", "--home", str(home), "--force")
    call("run", "--recipe", "smoke", "--run", "q", "--until", "numericalize_corpus", "--home", str(home),
         "--source", str(home / "text.txt"), "--set", "prepare_corpus.kind=plain-text",
         "--set", "prepare_corpus.valid_fraction=0.3", "--set", f"inputs.start_lm={start}",
         "--set", f"inputs.lm={start}")
    refused = call("compare", "--on", "q", "--rungs", "AWD_LSTM", "--home", str(home), exit_code=ExitCode.USAGE)
    assert "was not measured on the ids of q, so its figures cannot stand beside theirs." in refused.stderr


def test_rungs_without_names_are_those_that_fit(home: Path, reviews: Path) -> None:
    words = [rung.name for rung in chosen_rungs(plan_on("t", None, home), None)]
    assert words[0] == "kneser-ney"
    assert words[-2:] == ["LMModel7", "AWD_LSTM"]
    assert not [name for name in words if name.startswith("Char")]
    labelled = [rung.name for rung in chosen_rungs(plan_on("r", None, reviews), None)]
    assert labelled == ["bag-of-words", "TF-IDF", "NB-SVM", "n-gram-embeddings", "MLP", "CNN", "BiLSTM", "ULMFiT"]
    with pytest.raises(UsageError, match=r"Language models and classifiers share no figure\. Compare them in two"):
        chosen_rungs(plan_on("r", None, reviews), ["MLP", "LMModel1"])
