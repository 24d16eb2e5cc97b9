"""Honest and published: names, settings and labels of runs; their results are in tests/end_to_end/test_protocols.py."""

import json
import shlex
from pathlib import Path

import pytest
from tiny_stages import TinyStages
from typer.testing import CliRunner, Result

from pipeline.cli import PROGRAM, app
from pipeline.errors import ExitCode
from pipeline.protocol import protocol_of, what_was_read
from pipeline.report.summary import result_table
from pipeline.stage import STAGE_NAMES

RECIPE = """
[prepare_corpus]
kind = "human-numbers"
"""
VARIANTS = """
[evaluate_ensemble]
members = ["word", "char"]
[tokenize_corpus]
tokenizer = "subword"
[variants.word.tokenize_corpus]
tokenizer = "word"
[variants.char.tokenize_corpus]
tokenizer = "char"
"""
PUBLISHED = ("--recipe", "mine.toml", "--protocol", "published")


@pytest.fixture(autouse=True)
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyStages:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(RECIPE, encoding="utf-8")
    Path("several.toml").write_text(RECIPE + VARIANTS, encoding="utf-8")
    return TinyStages.in_place(monkeypatch)


def call(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), prog_name=PROGRAM)


def good(*args: str) -> Result:
    result = call(*args)
    assert result.exit_code == 0, result.output
    return result


def settings(path: str) -> dict[str, dict[str, object]]:
    return json.loads(Path(path, "manifest.json").read_text(encoding="utf-8"))["settings"]


def status_of(*args: str) -> dict[str, object]:
    return json.loads(good("status", "--json", *args).stdout)


@pytest.mark.parametrize(("metrics", "protocol", "clauses"), [
    ({}, "honest", 0),
    ({"transductive": False, "validated_on": "valid"}, "honest", 0),
    ({"transductive": True}, "published", 1),
    ({"transductive": True, "validated_on": "valid"}, "published", 1),
    ({"transductive": False, "validated_on": "test"}, "published", 1),
    ({"transductive": True, "validated_on": "test"}, "published", 2),
])
def test_whatever_saw_the_test_documents_is_published(metrics: dict, protocol: str, clauses: int) -> None:
    assert protocol_of(metrics) == protocol
    assert len(what_was_read(metrics)) == clauses


def test_a_published_run_lies_apart_and_sets_what_the_notebooks_do(stages: TinyStages) -> None:
    good("run", "--recipe", "mine.toml")
    honest = {p: p.read_bytes() for p in Path().rglob("manifest.json")}
    assert stages.ran == list(STAGE_NAMES)
    good("run", *PUBLISHED)
    assert stages.ran == list(STAGE_NAMES)
    assert {p.parent.parent.name for p in Path().rglob("manifest.json")} == {"mine", "mine-published"}
    assert {p: p.read_bytes() for p in honest} == honest
    for run, transductive, split in (("mine", False, "valid"), ("mine-published", True, "test")):
        assert settings(f"models/{run}/lm-fwd")["finetune_lm"]["transductive"] is transductive
        assert settings(f"models/{run}/classifier-fwd")["train_classifier"]["validate_on"] == split
    one, other = (json.loads(Path("data", run, "corpus/manifest.json").read_text(encoding="utf-8"))
                  for run in ("mine", "mine-published"))
    assert one["fingerprint"] == other["fingerprint"]


def test_the_name_alone_gives_a_published_run_again(stages: TinyStages) -> None:
    good("run", *PUBLISHED, "--set", "run.seed=7")
    assert json.loads(Path("data/mine-published/run.json").read_text(encoding="utf-8")) == {
        "recipe": "mine.toml", "set": ["run.seed=7"], "variant": None, "source": None, "protocol": "published"
    }
    stages.calls.clear()
    for names in (("--run", "mine-published"), ("--run", "mine", "--protocol", "published"), (*PUBLISHED, "--set",
                  "run.seed=7"), (*PUBLISHED, "--run", "mine-published", "--set", "run.seed=7")):
        assert good("run", *names).stderr.count("nothing changed") == 6
    assert stages.ran == []
    found = status_of("--run", "mine-published")
    assert found["run"] == "mine-published"
    assert {stage["state"] for stage in found["stages"]} == {"sealed"}
    assert good("status", "--run", "mine-published").stderr.startswith(
        "run mine-published with the arguments of its last command: --recipe mine.toml --protocol published --set"
    )


def test_an_honest_run_lends_its_arguments(stages: TinyStages) -> None:
    good("run", "--recipe", "mine.toml", "--set", "run.seed=7")
    good("run", "--run", "mine", "--protocol", "published")
    assert settings("models/mine-published/lm-fwd")["run"]["seed"] == 7


def test_the_next_command_of_a_published_run_names_the_protocol(stages: TinyStages) -> None:
    for stage in STAGE_NAMES:
        found = {s["stage"]: s for s in status_of(*PUBLISHED)["stages"]}
        command = shlex.split(found[stage]["next"])
        assert command[3:] == [stage, *PUBLISHED]
        good(*command[3:])
        assert stages.ran == [stage]
    assert not Path("data/mine").exists()


def test_variants_and_their_ensemble_follow_the_protocol(stages: TinyStages) -> None:
    good("run", "--recipe", "several.toml", "--protocol", "published")
    assert {p.parent.parent.name for p in Path().rglob("manifest.json")} == {
        "several-published", "several-published-word", "several-published-char"
    }
    assert stages.ran == ["prepare_corpus", *STAGE_NAMES[1:], *STAGE_NAMES[1:], "evaluate_ensemble"]
    good("run", "--run", "several-published-word")
    good("run", "--run", "several-published")
    assert stages.ran == []
    rows = [stage["stage"] for stage in status_of("--run", "several-published")["stages"]]
    assert rows[:2] == ["prepare_corpus", "tokenize_corpus[word]"]
    assert rows[-1] == "evaluate_ensemble"


@pytest.mark.parametrize(("args", "message"), [
    (("--recipe", "mine.toml", "--run", "x-published"),
     "'x-published' cannot name an honest run: such names are kept for the published protocol. Choose another --run "
     "NAME, or write --run x --protocol published."),
    ((*PUBLISHED, "--set", "finetune_lm.transductive=false"),
     "--protocol published sets finetune_lm.transductive=true, not finetune_lm.transductive=false. Leave out one"),
    ((*PUBLISHED, "--set", "train_classifier.validate_on=valid"), 'sets train_classifier.validate_on="test", not'),
    (("--recipe", "mine.toml", "--protocol", "publsihed"), "'publsihed' is not one of 'honest', 'published'"),
])
def test_the_protocols_cannot_be_mixed_up(args: tuple[str, ...], message: str) -> None:
    result = call("run", *args)
    assert message in result.stderr
    assert result.exit_code == ExitCode.USAGE
    assert not Path("data").exists()


def test_a_variant_cannot_look_like_a_protocol() -> None:
    Path("odd.toml").write_text(RECIPE + "[variants.published.run]\nseed = 1\n", encoding="utf-8")
    result = call("run", "--recipe", "odd.toml")
    assert "'published' cannot name a variant: it would look like a protocol. Choose another." in result.stderr
    assert result.exit_code == ExitCode.USAGE


def test_the_result_table_labels_the_protocol_and_states_both() -> None:
    metrics = {
        "accuracy": 0.8, "accuracy_low": 0.79, "accuracy_high": 0.81, "majority_accuracy": 0.5, "test_documents": 9,
        "transductive": True, "validated_on": "test",
        "other_protocol": {"run": "mine", "protocol": "honest", "accuracy": 0.7, "accuracy_low": 0.6,
                           "accuracy_high": 0.75},
    }
    lines = result_table(metrics, {"perplexity": 3.0, "protocol": "published", "transductive": True}).splitlines()
    assert lines[3].startswith("this classifier (published protocol)")
    assert lines[4].split("  ")[0] == "run mine (honest protocol)"
    assert lines[4].endswith("70.00 %  60.00 to 75.00 %")
    assert lines[6] == (
        "Published protocol: the language model has read the test documents' text; the epoch was chosen on the test "
        "documents."
    )
    assert lines[8].startswith("Language model (published protocol)")
