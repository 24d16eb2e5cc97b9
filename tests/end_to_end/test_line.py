"""All stages on a small table: what is written, what is skipped, what is inherited, what is refused."""

import csv
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import call, manifest

from pipeline.artifact import open_artifact
from pipeline.hardware import describe_machine, machine_in_words
from pipeline.text.ids import IdStore

FILES = {
    "data/smoke/corpus": {"documents.parquet", "labels.json"},
    "data/smoke/tokens": {
        "type_ids.bin", "offsets.npy", "types.parquet", "documents.parquet", "labels.json", "tokenizer/tokenizer.json",
    },
    "data/smoke/ids": {
        "ids.bin", "offsets.npy", "documents.parquet", "vocabulary.json", "labels.json", "tokenizer/tokenizer.json",
    },
    "models/smoke/lm-fwd": {
        "encoder.safetensors", "decoder.safetensors", "architecture.json", "vocabulary.json",
        "tokenizer/tokenizer.json", "history.csv", "history.jsonl", "curve.csv",
    },
    "models/smoke/classifier-fwd": {
        "encoder.safetensors", "head.safetensors", "architecture.json", "head.json", "vocabulary.json", "labels.json",
        "tokenizer/tokenizer.json", "history.csv", "history.jsonl", "curve.csv",
    },
    "models/smoke/evaluation": {"metrics.json", "predictions.parquet", "evaluation.md"},
}


@pytest.mark.parametrize("folder", FILES)
def test_every_artifact_holds_exactly_its_files(finished: Path, folder: str) -> None:
    path = finished / folder
    on_disk = {f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file()} - {"manifest.json"}
    assert on_disk == FILES[folder] == set(manifest(path)["files"])


def test_the_classifier_learns_and_its_evaluation_is_of_the_test_split(finished: Path) -> None:
    metrics = manifest(finished / "models/smoke/evaluation")["metrics"]
    assert metrics["test_documents"] == 72
    assert metrics["accuracy"] > 0.9 > metrics["majority_accuracy"]
    predictions = pq.read_table(finished / "models/smoke/evaluation/predictions.parquet").to_pylist()
    corpus = pq.read_table(finished / "data/smoke/corpus/documents.parquet").to_pylist()
    test_ids = [d["doc_id"] for d in corpus if d["split"] == "test"]
    assert [p["doc_id"] for p in predictions] == test_ids
    assert sum(p["correct"] for p in predictions) / 72 == pytest.approx(metrics["accuracy"])


def test_training_says_what_really_ran(finished: Path) -> None:
    for name in ("lm-fwd", "classifier-fwd"):
        found = manifest(finished / "models/smoke" / name)
        assert found["precision"] == {"requested": "fp32", "effective": "fp32"}
        assert found["device"] == "cpu"
        assert found["hardware"] == machine_in_words(describe_machine())
        assert set(found["identity"]) == {"corpus", "vocabulary", "tokenizer", "direction", "architecture"}


def test_nothing_runs_twice(finished: Path, arguments: list[str]) -> None:
    result = call("run", *arguments, "--home", str(finished))
    assert result.output.count("nothing changed") == 6
    assert "starting" not in result.output
    status = json.loads(call("status", "--run", "smoke", "--home", str(finished), "--json").stdout)
    assert {s["state"] for s in status["stages"]} == {"sealed"}
    assert all(s["metrics"] and s["next"] is None for s in status["stages"])


def test_max_vocab_reruns_from_numericalize_and_not_before(
    finished: Path, arguments: list[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(finished, home)
    changed = [*arguments, "--home", str(home), "--set", "numericalize_corpus.max_vocab=40"]
    refused = call("run", *changed, exit_code=3)
    assert "numericalize_corpus.max_vocab was 60000, now 40" in refused.output
    done = call("run", *changed, "--force", "--until", "finetune_lm")
    ran = [line.split(":")[0] for line in done.output.splitlines() if ": starting" in line]
    assert ran == ["numericalize_corpus", "finetune_lm"]
    assert len(json.loads((home / "data/smoke/ids/vocabulary.json").read_text())) == 40


def test_a_start_model_hands_on_tokenizer_vocabulary_and_architecture(
    finished: Path, arguments: list[str], tmp_path: Path
) -> None:
    start = finished / "models/smoke/lm-fwd"
    home = str(tmp_path)
    done = call(
        "run", *arguments, "--home", home, "--until", "finetune_lm", "--set", f"inputs.start_lm={start}",
        "--set", "finetune_lm.emb_sz=99", "--set", "tokenize_corpus.tokenizer=char",
    )
    assert "inherited" in done.output
    lm = tmp_path / "models/smoke/lm-fwd"
    for name in ("vocabulary.json", "architecture.json", "tokenizer/tokenizer.json"):
        assert (lm / name).read_bytes() == (start / name).read_bytes()
    assert manifest(lm)["metrics"]["started_from"] == manifest(start)["fingerprint"]
    first = json.loads((lm / "history.jsonl").read_text().splitlines()[0])
    from_scratch = json.loads((start / "history.jsonl").read_text().splitlines()[0])
    assert first["train_loss"] < from_scratch["train_loss"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("numericalize_corpus.max_vocab=30", "vocabulary"),
        ("tokenize_corpus.tokenizer=char", "tokenizer"),
    ],
)
def test_a_language_model_of_other_ids_is_refused(
    finished: Path, arguments: list[str], tmp_path: Path, change: str, key: str
) -> None:
    home = ["--home", str(tmp_path)]
    call("run", *arguments, *home, "--until", "numericalize_corpus", "--set", change)
    lm = finished / "models/smoke/lm-fwd"
    refused = call("train_classifier", *arguments, *home, "--set", change, "--set", f"inputs.lm={lm}", exit_code=3)
    assert f"The {key} of {tmp_path / 'data/smoke/ids'}" in refused.output
    assert str(lm) in refused.output


def test_a_language_model_of_the_other_direction_is_refused(
    finished: Path, arguments: list[str], tmp_path: Path
) -> None:
    lm, ids = finished / "models/smoke/lm-fwd", finished / "data/smoke/ids"
    refused = call(
        "train_classifier", *arguments, "--home", str(tmp_path), "--set", "run.direction=bwd",
        "--set", f"inputs.lm={lm}", "--set", f"inputs.ids={ids}", exit_code=3,
    )
    assert "lm-fwd reads fwd, this run reads bwd." in refused.output


def test_backwards_subword_under_fp16_goes_all_the_way(arguments: list[str], tmp_path: Path) -> None:
    call(
        "run", *arguments, "--home", str(tmp_path), "--set", "run.direction=bwd", "--set", "run.precision=fp16",
        "--set", "run.allow_fp16_on_cpu=true", "--set", "tokenize_corpus.tokenizer=subword",
        "--set", "tokenize_corpus.vocab_size=90",
    )
    for name in ("lm-bwd", "classifier-bwd"):
        found = manifest(tmp_path / "models/smoke" / name)
        assert found["precision"]["effective"] == "fp16"
        assert found["identity"]["direction"] == "bwd"
    assert manifest(tmp_path / "models/smoke/evaluation")["metrics"]["accuracy"] > 0.8


def test_transductive_text_is_said_in_every_artifact_after_it(arguments: list[str], tmp_path: Path) -> None:
    call("run", *arguments, "--home", str(tmp_path), "--set", "finetune_lm.transductive=true")
    for name in ("lm-fwd", "classifier-fwd", "evaluation"):
        assert manifest(tmp_path / "models/smoke" / name)["metrics"]["transductive"] is True
    assert "transductive" in (tmp_path / "models/smoke/evaluation/evaluation.md").read_text().lower()


def test_unlabelled_text_can_be_left_out(reviews_csv: Path, tmp_path: Path) -> None:
    with reviews_csv.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in [row for row in rows if row["split"] == "train"][::2]:
        row["split"], row["label"] = "unlabelled", ""
    with (tmp_path / "half.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    arguments = [
        "run", "--recipe", "smoke", "--source", str(tmp_path / "half.csv"),
        "--set", "prepare_corpus.split_column=split", "--set", "run.device=cpu", "--until", "finetune_lm",
        "--home", str(tmp_path),
    ]
    call(*arguments)
    call(*arguments, "--run", "train-only", "--set", "finetune_lm.unlabelled=false")
    store = IdStore.open(open_artifact(tmp_path / "data/smoke/ids", "ids"))
    for run, splits in (("smoke", ("train", "unlabelled")), ("train-only", ("train",))):
        tokens = int(store.n_tokens[store.documents(*splits)].sum())
        learned_from = manifest(tmp_path / "models" / run / "lm-fwd")["metrics"]["train_tokens"]
        assert 0.9 * tokens < learned_from <= tokens  # what does not fill the streams is left over
    assert len(store.documents("unlabelled")) > 10


def test_fp16_where_it_cannot_run_is_an_error(finished: Path, arguments: list[str]) -> None:
    refused = call(
        "finetune_lm", *arguments, "--home", str(finished), "--run", "other", "--set", "run.precision=fp16",
        "--set", f"inputs.ids={finished / 'data/smoke/ids'}", exit_code=2,
    )
    assert "run.precision is fp16, which this CPU would only emulate slowly." in refused.output


def test_too_few_tokens_for_the_batch_size(finished: Path, arguments: list[str]) -> None:
    refused = call(
        "finetune_lm", *arguments, "--home", str(finished), "--run", "wide", "--set", "finetune_lm.bs=100000",
        "--set", f"inputs.ids={finished / 'data/smoke/ids'}", exit_code=4,
    )
    assert "are too few for 100000 streams. Lower finetune_lm.bs with --set." in refused.output
