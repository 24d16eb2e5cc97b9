"""A run that keeps its own vocabulary and matches a language model's rows to it: all stages, and after a stop."""

from dataclasses import replace
from pathlib import Path

import pytest
from command_line import call, manifest, write_reviews
from fastai.learner import Callback

from pipeline import stopping
from pipeline.stage import StageContext
from pipeline.stages import finetune_lm
from pipeline.training.phases import Trained, train_stage

MATCH = ("--set", "finetune_lm.vocabulary=match")


@pytest.fixture(scope="module")
def start(finished: Path) -> Path:
    """A language model whose vocabulary is that of other reviews."""
    return finished / "models/smoke/lm-fwd"


@pytest.fixture
def others(arguments: list[str], start: Path, tmp_path: Path) -> list[str]:
    """Arguments of a run on reviews of its own that starts from that model."""
    table = write_reviews(tmp_path / "others.csv", 120, seed=5)
    table.write_text(table.read_text(encoding="utf-8").replace("camera", "cinematography"), encoding="utf-8")
    own = ["--source", str(table), "--home", str(tmp_path), "--set", f"inputs.start_lm={start}"]
    return [*arguments, *own, "--set", "numericalize_corpus.min_freq=2"]


def test_a_matched_run_goes_all_the_way_with_its_own_ids(others: list[str], start: Path, tmp_path: Path) -> None:
    done = call("run", *others, *MATCH)
    ids, lm = manifest(tmp_path / "data/smoke/ids"), manifest(tmp_path / "models/smoke/lm-fwd")
    assert set(lm["inputs"]) == {"ids", "start_lm"}
    assert set(ids["inputs"]) == {"tokens"}
    assert set(manifest(tmp_path / "data/smoke/tokens")["inputs"]) == {"corpus"}
    assert lm["identity"].items() >= ids["identity"].items()
    assert lm["identity"]["vocabulary"] != manifest(start)["identity"]["vocabulary"]
    assert lm["identity"]["architecture"] != manifest(start)["identity"]["architecture"]
    assert lm["metrics"]["started_from"] == manifest(start)["fingerprint"]
    matched = lm["metrics"]["matched"]
    assert matched["rows"]["mean"]["types"] == 1  # cinematography
    assert 0.9 < matched["types"] < 1
    assert 0.9 < matched["tokens"] < 1
    said = f"{matched['types']:.2%} of the vocabulary and {matched['tokens']:.2%} of the training tokens matched"
    assert said in done.output
    assert manifest(tmp_path / "models/smoke/evaluation")["metrics"]["accuracy"] > 0.8
    inherit = call("run", *others, "--set", "finetune_lm.vocabulary=inherit", exit_code=3)
    assert "input start_lm was not used" in inherit.output


def test_ids_of_another_vocabulary_are_refused_unless_matched(
    others: list[str], start: Path, tmp_path: Path
) -> None:
    call("run", *others, *MATCH, "--until", "numericalize_corpus")
    given = ["--run", "other", "--set", f"inputs.ids={tmp_path / 'data/smoke/ids'}"]
    refused = call("finetune_lm", *others, *given, exit_code=3)
    assert f"The vocabulary of {tmp_path / 'data/smoke/ids'}" in refused.output
    assert "match its rows by token: python -m pipeline run" in refused.output
    call("finetune_lm", *others, *given, *MATCH, "--set", "finetune_lm.phases.1.epochs=1")


def test_characters_are_not_matched_with_words(others: list[str], start: Path) -> None:
    refused = call("run", *others, *MATCH, "--set", "tokenize_corpus.tokenizer=char", exit_code=3)
    assert f"has kind char, that of {start} word: equal tokens would not mean the same." in refused.output
    assert "--set tokenize_corpus.tokenizer=word" in refused.output


def test_pieces_start_from_words(others: list[str], start: Path, tmp_path: Path) -> None:
    pieces = ["--set", "tokenize_corpus.tokenizer=subword", "--set", "tokenize_corpus.vocab_size=90"]
    call("run", *others, *MATCH, *pieces, "--until", "train_classifier")
    lm = manifest(tmp_path / "models/smoke/lm-fwd")
    rows = lm["metrics"]["matched"]["rows"]
    assert min(row["types"] for row in rows.values()) > 0
    assert rows["same"]["tokens"] + rows["several"]["tokens"] > 0.8
    assert lm["identity"]["tokenizer"] == manifest(tmp_path / "data/smoke/tokens")["identity"]["tokenizer"]
    assert manifest(tmp_path / "models/smoke/classifier-fwd")["identity"] == lm["identity"]
    words = ["--run", "words", "--set", f"inputs.start_lm={tmp_path / 'models/smoke/lm-fwd'}"]
    refused = call("run", *others, *MATCH, *words, "--until", "finetune_lm", exit_code=3)
    assert f"has kind word, that of {tmp_path / 'models/smoke/lm-fwd'} subword" in refused.output


def test_a_stopped_matched_run_ends_bit_equal(
    others: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Callback):
        def after_batch(self) -> None:
            if self.training and self.iter == 5:
                stopping.ask("a test")

    def stopped(context: StageContext, prepared: finetune_lm.Prepared) -> Trained:
        return train_stage(context, replace(prepared, task=replace(prepared.task, callbacks=[Stop()])))

    line = ["run", *others, *MATCH, "--until", "finetune_lm"]
    call(*line)
    whole = manifest(tmp_path / "models/smoke/lm-fwd")
    other = ["--run", "broken", "--set", f"inputs.ids={tmp_path / 'data/smoke/ids'}"]
    with monkeypatch.context() as patch:
        patch.setattr(finetune_lm, "train_stage", stopped)
        assert "was stopped by a test" in call(*line, *other, exit_code=75).output
    assert "going on after step" in call(*line, *other).output
    resumed = manifest(tmp_path / "models/broken/lm-fwd")
    for name in ("encoder.safetensors", "decoder.safetensors", "vocabulary.json", "architecture.json"):
        assert resumed["files"][name] == whole["files"][name]
    assert resumed["metrics"]["matched"] == whole["metrics"]["matched"]
