"""The chain of custody: what does not belong together is refused by name, before anything heavy is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import artifact as artifacts
from pipeline.artifact import Artifact
from pipeline.custody import check_inputs
from pipeline.errors import InputError

ROOT = Path(__file__).parents[1]
IDENTITY = {"corpus": "c" * 64, "tokenizer": "1" * 64, "vocabulary": "2" * 64, "direction": "fwd"}
INPUTS = {
    "numericalize_corpus": ("tokens", "start_lm"), "finetune_lm": ("ids", "start_lm"),
    "train_classifier": ("ids", "lm", "start_classifier"), "evaluate_classifier": ("corpus", "ids", "classifier"),
}
WRONG = [
    ("numericalize_corpus", "start_lm", "tokenizer", "--run NAME --set inputs.start_lm="),
    ("finetune_lm", "start_lm", "tokenizer", "--run NAME --set inputs.start_lm="),
    ("finetune_lm", "start_lm", "vocabulary", "--run NAME --set inputs.start_lm="),
    ("train_classifier", "lm", "tokenizer", "--run NAME --set inputs.start_lm="),
    ("train_classifier", "lm", "vocabulary", "--run NAME --set inputs.start_lm="),
    ("train_classifier", "start_classifier", "tokenizer", "--set inputs.start_classifier=none"),
    ("train_classifier", "start_classifier", "vocabulary", "--set inputs.start_classifier=none"),
    ("evaluate_classifier", "classifier", "tokenizer", "--run NAME --set inputs.classifier=none"),
    ("evaluate_classifier", "classifier", "vocabulary", "--run NAME --set inputs.classifier=none"),
]


def command(*arguments: str) -> str:
    return " ".join(("python -m pipeline", *arguments))


def artifact(slot: str, **identity: str) -> Artifact:
    """An artifact of which only the manifest matters."""
    manifest = artifacts.Manifest.model_construct(
        slot=slot.removeprefix("start_"), fingerprint=IDENTITY["corpus"] if slot == "corpus" else slot * 9,
        identity=IDENTITY | identity,
    )
    return Artifact(Path(f"here/{slot}"), manifest)


def inputs(stage: str, **wrong: Artifact) -> dict[str, Artifact]:
    return {slot: wrong.get(slot) or artifact(slot) for slot in INPUTS[stage]}


@pytest.mark.parametrize("stage", INPUTS)
def test_what_belongs_together_passes(stage: str) -> None:
    check_inputs(stage, inputs(stage), "fwd", command)


@pytest.mark.parametrize(("stage", "slot", "key", "mend"), WRONG)
def test_a_mismatch_names_both_sides_and_the_command(stage: str, slot: str, key: str, mend: str) -> None:
    text = next(name for name in INPUTS[stage] if name in ("tokens", "ids"))
    with pytest.raises(InputError) as refused:
        check_inputs(stage, inputs(stage, **{slot: artifact(slot, **{key: "9" * 64})}), "fwd", command)
    what = f"The {key} of here/{text} ({IDENTITY[key][:12]}) is not that of here/{slot} ({'9' * 12})."
    assert str(refused.value).startswith(what)
    assert f"python -m pipeline run {mend}" in refused.value.mend


@pytest.mark.parametrize(("stage", "slot"), [
    ("finetune_lm", "start_lm"), ("train_classifier", "lm"), ("train_classifier", "start_classifier"),
    ("evaluate_classifier", "classifier"),
])
def test_another_direction_is_refused(stage: str, slot: str) -> None:
    with pytest.raises(InputError, match=rf"here/{slot} reads bwd, this run reads fwd\..*--set run\.direction=bwd"):
        check_inputs(stage, inputs(stage, **{slot: artifact(slot, direction="bwd")}), "fwd", command)


def tokenized(slot: str, folder: Path, **description: str) -> Artifact:
    """An artifact with another tokenizer and vocabulary, which says what the tokenizer is."""
    (folder / slot / "tokenizer").mkdir(parents=True)
    told = {"kind": "word", "rules": "fastai", "language": "en"} | description
    (folder / slot / "tokenizer/tokenizer.json").write_text(json.dumps(told), encoding="utf-8")
    manifest = artifact(slot, tokenizer=slot * 9, vocabulary=slot * 9).manifest
    return Artifact(folder / slot, manifest.model_copy(update={"files": {"tokenizer/tokenizer.json": None}}))


def test_a_matched_language_model_may_have_another_vocabulary_and_language(tmp_path: Path) -> None:
    found = {slot: tokenized(slot, tmp_path, language=slot) for slot in ("ids", "start_lm")}
    check_inputs("finetune_lm", found, "fwd", command, matched=True)
    with pytest.raises(InputError, match=r"keep these and match its rows by token: .*finetune_lm\.vocabulary=match"):
        check_inputs("finetune_lm", found, "fwd", command)
    with pytest.raises(InputError, match=r"start_lm reads fwd, this run reads bwd"):
        check_inputs("finetune_lm", found, "bwd", command, matched=True)
    with pytest.raises(InputError, match=r"The tokenizer of .*ids .* is not that of"):  # only a start may be matched
        check_inputs("train_classifier", {"ids": found["ids"], "lm": found["start_lm"]}, "fwd", command, matched=True)


def test_pieces_may_start_from_words_and_not_the_other_way_round(tmp_path: Path) -> None:
    found = {"ids": tokenized("ids", tmp_path, kind="subword"), "start_lm": tokenized("start_lm", tmp_path)}
    check_inputs("finetune_lm", found, "fwd", command, matched=True)
    other = {"ids": found["start_lm"], "start_lm": found["ids"]}
    with pytest.raises(InputError, match=r"start_lm has kind word, that of .*ids subword: equal tokens would not mean"):
        check_inputs("finetune_lm", other, "fwd", command, matched=True)


@pytest.mark.parametrize(
    ("key", "other", "setting"),
    [("kind", "char", "tokenizer"), ("rules", "none", "rules"), ("normalize", "NFC", "normalize")],
)
def test_a_matched_language_model_must_cut_text_alike(tmp_path: Path, key: str, other: str, setting: str) -> None:
    found = {"ids": tokenized("ids", tmp_path), "start_lm": tokenized("start_lm", tmp_path, **{key: other})}
    with pytest.raises(InputError, match=rf"ids has {key} \w+, that of .*start_lm {other}: .*\.{setting}={other}$"):
        check_inputs("finetune_lm", found, "fwd", command, matched=True)


def test_ids_of_another_text_are_refused() -> None:
    wrong = inputs("evaluate_classifier", ids=artifact("ids", corpus="9" * 64))
    with pytest.raises(InputError, match=r"here/ids was made from corpus 9{12}, here/corpus is c{12}\..*fier=none"):
        check_inputs("evaluate_classifier", wrong, "fwd", command)


def evaluation(name: str, fingerprint: str, **identity: str) -> Artifact:
    manifest = artifacts.Manifest.model_construct(
        slot="evaluation", fingerprint=fingerprint * 64, identity=IDENTITY | identity, metrics={},
        inputs={"corpus": artifacts.InputRecord(path="data/a/corpus", fingerprint=IDENTITY["corpus"])},
    )
    return Artifact(Path(f"models/{name}/evaluation"), manifest)


def test_members_may_differ_in_all_but_the_corpus() -> None:
    other = evaluation("b", "b", tokenizer="7" * 64, vocabulary="8" * 64, direction="bwd")
    check_inputs("evaluate_ensemble", {"member a": evaluation("a", "a"), "member b": other}, "fwd", command)


@pytest.mark.parametrize(("other", "message"), [
    (evaluation("b", "b", corpus="9" * 64),
     f"models/b/evaluation was scored on corpus {'9' * 12}, models/a/evaluation on {'c' * 12}. Make the members on one "
     "corpus, in the command of each: --set inputs.corpus=data/a/corpus"),
    (evaluation("b", "a"),
     f"models/b/evaluation and models/a/evaluation are the same evaluation ({'a' * 12}). Name each member once."),
])
def test_members_that_cannot_vote_together_are_refused(other: Artifact, message: str) -> None:
    with pytest.raises(InputError) as refused:
        check_inputs("evaluate_ensemble", {"member a": evaluation("a", "a"), "member b": other}, "fwd", command)
    assert str(refused.value) == message


def test_members_of_two_protocols_are_refused() -> None:
    other = evaluation("b", "b")
    other.manifest.metrics["protocol"] = "published"
    with pytest.raises(InputError, match=r"models/b/evaluation was made under the published protocol, models/a/evaluat"
                       r"ion under the honest one\. .*--protocol honest$"):
        check_inputs("evaluate_ensemble", {"member a": evaluation("a", "a"), "member b": other}, "fwd", command)


def test_an_evaluation_that_does_not_name_its_corpus_is_refused() -> None:
    old = evaluation("b", "b")
    del old.manifest.identity["corpus"]
    with pytest.raises(InputError, match=r"models/b/evaluation does not say which corpus .*evaluate_classifier"):
        check_inputs("evaluate_ensemble", {"member a": evaluation("a", "a"), "member b": old}, "fwd", command)


def test_the_refusal_comes_before_anything_heavy_is_imported() -> None:
    heavy = "import sys, pipeline.custody, pipeline.stage; print({'torch', 'fastai', 'spacy'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert output == "set()\n"
