"""The stage contract: what a fingerprint sees, skip, refuse, replace, resume, and what a broken machine leaves."""

import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from tiny_stages import TinyStages

from pipeline import artifact as artifacts
from pipeline.errors import (
    ExitCode,
    InputError,
    LockedError,
    OutOfMemoryError,
    PipelineError,
    StorageError,
    UsageError,
)
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.report.chain import chain_to
from pipeline.settings import Section
from pipeline.stage import STAGE_NAMES, STAGES, Run, StageContext, fingerprint_of, run_stage, run_stages, select
from pipeline.standing import status

ALL = list(STAGE_NAMES)


@pytest.fixture
def tiny_stages(monkeypatch: pytest.MonkeyPatch) -> TinyStages:
    return TinyStages.in_place(monkeypatch)


def make_run(home: Path, overrides: dict[str, dict[str, Any]] | None = None, name: str = "r") -> Run:
    values = {"prepare_corpus": {"kind": "human-numbers"}}
    for section, changes in (overrides or {}).items():
        values[section] = values.get(section, {}) | changes
    return Run(name, Recipe.model_validate(values), home, ("--recipe", "mine.toml"))


def run_all(run: Run, force: bool = False) -> None:
    run_stages(run, STAGES, Reporter(), force)


def states(run: Run) -> list[str]:
    return [stage.state for stage in status(run)]


def leftovers(home: Path) -> set[str]:
    """Everything below `home` that is neither an artifact nor a lock file."""
    hidden = {p.relative_to(home).as_posix() for p in home.rglob(".*")}
    return {name for name in hidden if not name.endswith(".lock")}


def test_a_run_seals_every_stage_and_runs_nothing_twice(
    tmp_path: Path, tiny_stages: TinyStages, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    assert states(run) == ["missing"] * 6
    run_all(run)
    assert tiny_stages.ran == ALL
    assert states(run) == ["sealed"] * 6
    assert leftovers(tmp_path) == set()
    capsys.readouterr()
    run_all(run)
    assert tiny_stages.ran == []
    assert capsys.readouterr().err.count("nothing changed") == 6


def test_artifacts_lie_where_the_readmes_say(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run_all(make_run(tmp_path, {"run": {"direction": "bwd"}}))
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*/*") if p.name[0] != "."} == {
        "data/r/corpus", "data/r/tokens", "data/r/ids", "models/r/lm-bwd", "models/r/classifier-bwd",
        "models/r/evaluation",
    }


def test_a_manifest_tells_what_made_it(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run = make_run(tmp_path)
    run_all(run)
    manifest = artifacts.open_artifact(run.path("lm"), "lm").manifest
    ids = artifacts.open_artifact(run.path("ids"), "ids").manifest
    assert manifest.inputs["ids"].model_dump() == {"path": "data/r/ids", "fingerprint": ids.fingerprint}
    assert manifest.settings["finetune_lm"]["n_layers"] == 3
    assert manifest.settings["run"] == {"seed": 42, "direction": "fwd", "precision": "auto"}
    assert manifest.versions["torch"]
    assert manifest.peak_memory_mb > 1
    assert manifest.metrics["undefined"] is None
    corpus = artifacts.open_artifact(run.path("corpus"), "corpus").manifest
    assert corpus.source == {"identity": {"kind": "human-numbers"}}


OTHER_VALUES: dict[str, Any] = {
    "seed": 1, "direction": "bwd", "precision": "fp32", "device": "cpu", "rank_timeout_s": 9.0,
    "allow_fp16_on_cpu": True,
    "kind": "plain-text", "source": "x.txt", "sha256": "0" * 64, "text_column": "t", "label_column": "l",
    "split_column": "s", "splits_from_names": True, "id_column": "i", "group_column": "g", "valid_fraction": 0.3,
    "test_fraction": 0.4,
    "limit_per_split": 5, "test_documents": 7, "offline": True, "tokenizer": "char", "rules": "none",
    "language": "de", "model_type": "bpe", "vocab_size": 99,
    "character_coverage": 0.99, "workers": 3, "min_freq": 9, "max_vocab": 99, "drop_mult": 0.7,
    "accumulate": 9, "average_epochs": 2, "random_seq_len": True, "lm_loss_weight": 0.5,
    "adversarial": 0.5, "virtual_adversarial": 0.5,
    "bs": 9, "seq_len": 9, "wd": 0.3, "clip": 0.5, "moms": [0.9, 0.8, 0.9], "alpha": 0.1, "beta": 0.1, "log_every": 9,
    "emb_sz": 9, "n_hid": 9, "n_layers": 2, "output_p": 0.01, "hidden_p": 0.01, "input_p": 0.01, "embed_p": 0.01,
    "weight_p": 0.01, "tie_weights": False, "unlabelled": False, "transductive": True,
    "phases": [{"name": "a", "lr": 1.0}],
    "vocabulary": "match", "normalize": "NFKC", "labelled": 8, "encoder": "random", "validate_on": "test",
    "lin_ftrs": [9], "head_p": 0.01, "max_len": 99, "class_weights": "balanced", "label_smoothing": 0.1,
    "checkpoint_steps": 9, "checkpoint_minutes": 9.0,
    "keep_checkpoints": 9, "max_skipped": 9, "bootstrap_samples": 200, "calibration_bins": 9, "baseline": False,
}
SILENT = {  # where, how fast and how safe, never what
    *(f"{stage}.{key}" for stage in ("finetune_lm", "train_classifier")
      for key in ("checkpoint_steps", "checkpoint_minutes", "keep_checkpoints", "max_skipped")),
    "run.device", "run.rank_timeout_s", "run.allow_fp16_on_cpu", "prepare_corpus.source", "prepare_corpus.offline",
    "tokenize_corpus.workers", "finetune_lm.log_every",
    "train_classifier.log_every", "evaluate_classifier.bs",
}
SETTINGS = [
    (section, key)
    for section in ("run", *STAGE_NAMES)
    for key in type(getattr(Recipe(), section)).model_fields
]


@pytest.mark.parametrize(("section", "key"), SETTINGS, ids=lambda x: x)
def test_a_fingerprint_changes_with_exactly_the_settings_of_its_stage(tmp_path: Path, section: str, key: str) -> None:
    before, after = make_run(tmp_path), make_run(tmp_path, {section: {key: OTHER_VALUES[key]}})
    settings: Section = getattr(before.recipe, section)
    assert getattr(settings, key) != getattr(getattr(after.recipe, section), key)
    changed = {s.name for s in STAGES if fingerprint_of(before, s, {}, None) != fingerprint_of(after, s, {}, None)}
    if f"{section}.{key}" in SILENT:
        expected = set()
    elif section == "run":
        expected = {stage.name for stage in STAGES if key in stage.run_settings}
        assert expected
    else:
        expected = {section}
    assert changed == expected


def test_a_setting_that_came_later_leaves_what_is_sealed_as_it_is() -> None:
    assert "test_documents" not in Recipe().prepare_corpus.affecting_output()
    chosen = Recipe.model_validate({"prepare_corpus": {"test_documents": 7}})
    assert chosen.prepare_corpus.affecting_output()["test_documents"] == 7


def test_a_fingerprint_sees_inputs_source_and_code(tmp_path: Path) -> None:
    run, stage = make_run(tmp_path), STAGES[1]
    seen = {
        fingerprint_of(run, stage, {"corpus": "a"}, None),
        fingerprint_of(run, stage, {"corpus": "b"}, None),
        fingerprint_of(run, stage, {"corpus": "a"}, {"sha256": "c"}),
        fingerprint_of(run, STAGES[2], {"corpus": "a"}, None),
    }
    assert len(seen) == 4


def test_other_settings_are_refused_by_name_and_replaced_by_force(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run_all(make_run(tmp_path))
    changed = make_run(tmp_path, {"numericalize_corpus": {"max_vocab": 100}})
    assert states(changed) == ["sealed", "sealed", "stale", "stale", "stale", "stale"]
    assert status(changed)[3].why == "its input changed"
    message = (
        "ids was made with other settings: numericalize_corpus.max_vocab was 60000, now 100. Replace it and what "
        "follows: python -m pipeline run --recipe mine.toml --force (or choose a new --run)."
    )
    tiny_stages.calls.clear()
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        run_all(changed)
    assert caught.value.exit_code == ExitCode.INPUT
    assert tiny_stages.ran == []
    assert states(make_run(tmp_path)) == ["sealed"] * 6
    run_all(changed, force=True)
    assert tiny_stages.ran == ALL[2:]
    assert states(changed) == ["sealed"] * 6
    assert leftovers(tmp_path) == set()


def test_settings_that_do_not_shape_the_output_change_nothing(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run_all(make_run(tmp_path))
    tiny_stages.calls.clear()
    run_all(make_run(tmp_path, {"tokenize_corpus": {"workers": 2}, "run": {"device": "cpu"}}))
    assert tiny_stages.ran == []


def test_a_new_version_of_a_stage_is_told(
    tmp_path: Path, tiny_stages: TinyStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    run_all(run)
    manifest = artifacts.read_manifest(run.path("tokens"))
    assert manifest
    (run.path("tokens") / "manifest.json").write_text(
        manifest.model_copy(update={"code_version": 0, "fingerprint": "old"}).sealed().model_dump_json()
    )
    assert status(run)[1].why == f"made by version 0 of the stage, now {STAGES[1].code_version}"


def test_changed_source_data_is_told_and_followed(tmp_path: Path, tiny_stages: TinyStages) -> None:
    text = tmp_path / "book.txt"
    text.write_text("one", encoding="utf-8")
    run = make_run(tmp_path, {"prepare_corpus": {"kind": "plain-text", "source": str(text)}})
    run_all(run)
    assert states(run) == ["sealed"] * 6
    text.rename(tmp_path / "moved.txt")
    moved = make_run(tmp_path, {"prepare_corpus": {"kind": "plain-text", "source": str(tmp_path / "moved.txt")}})
    assert states(moved) == ["sealed"] * 6
    unnamed = make_run(tmp_path, {"prepare_corpus": {"kind": "plain-text"}})
    assert states(unnamed) == ["sealed"] * 6
    (tmp_path / "moved.txt").write_text("two, longer", encoding="utf-8")
    assert next((s.state, s.why) for s in status(moved)) == ("stale", "its source changed")
    tiny_stages.calls.clear()
    run_all(moved, force=True)
    assert tiny_stages.ran == ["prepare_corpus", *ALL[1:]]


def test_a_stage_that_was_stopped_goes_on(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run = make_run(tmp_path)

    def stop(context: StageContext) -> None:
        (context.resume / "checkpoint").write_text("half way")
        os.utime(context.resume / "checkpoint", (time.time() + 100,) * 2)  # as if it had taken so long
        raise KeyboardInterrupt

    tiny_stages.act["finetune_lm"] = stop
    with pytest.raises(KeyboardInterrupt):
        run_all(run)
    assert states(run) == ["sealed", "sealed", "sealed", "partial", "missing", "missing"]
    found = []
    tiny_stages.act["finetune_lm"] = lambda context: found.append((context.resume / "checkpoint").read_text())
    tiny_stages.calls.clear()
    run_all(run)
    assert tiny_stages.calls[0] == ("finetune_lm", True)
    assert found == ["half way"]
    assert 100 <= artifacts.open_artifact(run.path("lm"), "lm").manifest.wall_s < 200
    assert "resume" not in {p.name for p in run.path("lm").iterdir()}
    assert leftovers(tmp_path) == set()


def test_an_input_that_is_replaced_while_it_is_read_seals_nothing(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run, other = make_run(tmp_path), make_run(tmp_path, {"prepare_corpus": {"valid_fraction": 0.2}})
    run_stage(run, STAGES[0], Reporter())

    def replace(context: StageContext) -> None:
        (context.resume / "piece").write_text("of the first corpus")
        run_stage(other, STAGES[0], Reporter(), force=True)

    tiny_stages.act["tokenize_corpus"] = replace
    with pytest.raises(InputError, match=r"data/r/corpus was replaced while it was read\. Type the same command again"):
        run_stage(run, STAGES[1], Reporter())
    assert not run.path("tokens").exists()
    tiny_stages.act.clear()
    run_stage(run, STAGES[0], Reporter(), force=True)
    tiny_stages.calls.clear()
    run_stage(run, STAGES[1], Reporter())
    assert tiny_stages.calls == [("tokenize_corpus", False)]


def test_force_leaves_files_that_no_stage_made(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run = make_run(tmp_path)
    run.path("corpus").mkdir(parents=True)
    thesis = run.path("corpus") / "thesis.txt"
    thesis.write_text("mine")
    with pytest.raises(InputError, match=r"data/r/corpus is not a sealed artifact.*move this one away"):
        run_stage(run, STAGES[0], Reporter(), force=True)
    assert thesis.read_text() == "mine"


def test_an_attempt_with_other_settings_is_not_taken_up(tmp_path: Path, tiny_stages: TinyStages) -> None:
    def stop(context: StageContext) -> None:
        (context.work / "half.bin").write_text("half")
        raise KeyboardInterrupt

    tiny_stages.act["finetune_lm"] = stop
    with pytest.raises(KeyboardInterrupt):
        run_all(make_run(tmp_path))
    del tiny_stages.act["finetune_lm"]
    other = make_run(tmp_path, {"finetune_lm": {"wd": 0.5}})
    assert states(other)[3] == "missing"
    tiny_stages.calls.clear()
    run_stage(other, STAGES[3], Reporter())
    assert tiny_stages.calls == [("finetune_lm", False)]
    assert not (other.path("lm") / "half.bin").exists()


@pytest.mark.parametrize("name", ["payload.json", "manifest.json"])
def test_damage_is_refused_by_name_and_mended_by_force(tmp_path: Path, tiny_stages: TinyStages, name: str) -> None:
    run = make_run(tmp_path)
    run_all(run)
    path = run.path("tokens") / name
    content = path.read_bytes()
    path.write_bytes(content[:9] + bytes([content[9] ^ 1]) + content[10:])
    for stage in STAGES[1:3]:  # as its own output, and as another stage's input
        with pytest.raises(InputError, match=re.escape(str(path))):
            run_stage(run, stage, Reporter())
    tiny_stages.calls.clear()
    run_all(run, force=True)
    assert tiny_stages.ran == ["tokenize_corpus"]
    assert path.read_bytes() == content or name == "manifest.json"
    assert states(run) == ["sealed"] * 6


def test_a_missing_file_makes_a_stage_stale(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run = make_run(tmp_path)
    run_all(run)
    (run.path("ids") / "payload.json").unlink()
    assert (status(run)[2].state, status(run)[2].why) == ("stale", f"{run.path('ids') / 'payload.json'} is missing")


def test_a_missing_input_names_the_command_that_makes_it(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run = make_run(tmp_path)
    message = f"tokenize_corpus needs {run.path('corpus')}, which is not there or not sealed. Make it first: "
    command = "python -m pipeline run --recipe mine.toml --until prepare_corpus"
    with pytest.raises(InputError, match=re.escape(message + command)):
        run_stage(run, STAGES[1], Reporter())


def test_given_inputs_are_used_where_they_lie(tmp_path: Path, tiny_stages: TinyStages) -> None:
    first = make_run(tmp_path, name="first")
    run_all(first)
    given = {"ids": str(first.path("ids")), "start_lm": str(first.path("lm"))}
    second = make_run(tmp_path, {"inputs": given}, "second")
    tiny_stages.calls.clear()
    run_stages(second, STAGES[2:4], Reporter())
    assert tiny_stages.ran == ["finetune_lm"]
    manifest = artifacts.open_artifact(second.path("lm"), "lm").manifest
    assert manifest.inputs["start_lm"].path == "models/first/lm-fwd"
    assert manifest.inputs["ids"].path == "data/first/ids"
    assert [s.state for s in status(second)][2:4] == ["sealed", "sealed"]
    wrong = make_run(tmp_path, {"inputs": {"ids": str(first.path("lm"))}}, "third")
    with pytest.raises(InputError, match=r"holds lm, not ids"):
        run_stage(wrong, STAGES[3], Reporter())
    unfetched = make_run(tmp_path, {"inputs": {"ids": str(first.path("ids")), "start_lm": "models/wt103/lm-bwd"}}, "f")
    with pytest.raises(InputError, match=r"needs models/wt103/lm-bwd, .* Fetch it: .* import-fastai wt103-bwd \("):
        run_stage(unfetched, STAGES[3], Reporter())
    absent = make_run(tmp_path, {"inputs": {"ids": str(tmp_path / "no")}}, "fourth")
    assert (status(absent)[2].state, status(absent)[2].why) == (
        "missing", f"the recipe names {tmp_path / 'no'}, which does not exist"
    )
    with pytest.raises(InputError, match=r"needs .*no, which is not there or not sealed\. Correct \[inputs\]\."):
        run_stage(absent, STAGES[3], Reporter())
    (first.path("ids") / "manifest.json").write_text("{}")
    assert status(second)[2].state == "stale"


def test_one_run_at_a_time(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run = make_run(tmp_path)

    def meanwhile(_: StageContext) -> None:
        with pytest.raises(LockedError, match=r"corpus is being written by process \d+ on host .*--run\."):
            run_stage(run, STAGES[0], Reporter())

    tiny_stages.act["prepare_corpus"] = meanwhile
    run_stage(run, STAGES[0], Reporter())
    assert states(run)[0] == "sealed"


BIG = 1 << 20
WRITERS: dict[str, Callable[[Path], Any]] = {
    "python": lambda folder: (folder / "x").write_bytes(bytes(BIG)),
    "numpy": lambda folder: np.zeros(BIG, np.uint8).tofile(folder / "x"),
    "numpy save": lambda folder: np.save(folder / "x.npy", np.zeros(BIG, np.uint8)),
    "safetensors": lambda folder: save_file({"x": np.zeros(BIG, np.uint8)}, folder / "x.safetensors"),
    "pyarrow": lambda folder: pq.write_table(
        pa.table({"x": np.random.default_rng(0).integers(0, 1 << 60, BIG // 8)}), folder / "x.parquet"
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_stops_the_stage_and_leaves_nothing_half_made(
    tmp_path: Path, tiny_stages: TinyStages, writer: str
) -> None:
    run = make_run(tmp_path)
    run_stage(run, STAGES[0], Reporter())
    tiny_stages.act["tokenize_corpus"] = lambda context: WRITERS[writer](context.work)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"tokenize_corpus could not read or write") as caught:
            run_stage(run, STAGES[1], Reporter())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == ExitCode.STORAGE
    assert caught.value.mend.startswith("Free some space")
    assert states(run)[:2] == ["sealed", "partial"]
    run_stage(run, STAGES[1], Reporter())
    assert states(run)[:2] == ["sealed", "sealed"]
    assert leftovers(tmp_path) == set()


def test_exhausted_memory_names_the_batch_size(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run = make_run(tmp_path)
    for stage, mend in ((STAGES[0], r"The same command goes on where"), (STAGES[3], r".*finetune_lm\.bs=32 --force$")):
        tiny_stages.act[stage.name] = lambda _: bytearray(1 << 62)
        with pytest.raises(OutOfMemoryError, match=rf"{stage.name} ran out of memory\. {mend}") as caught:
            run_stage(run, stage, Reporter())
        assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY
        del tiny_stages.act[stage.name]
        for before in STAGES[:3]:
            run_stage(run, before, Reporter())


@pytest.mark.parametrize(("stage", "bs", "smaller"), [
    ("finetune_lm", 3, 1), ("finetune_lm", 1, None), ("train_classifier", 3, 2), ("train_classifier", 2, None),
])
def test_half_a_batch_is_no_less_than_the_stage_takes(
    tmp_path: Path, tiny_stages: TinyStages, stage: str, bs: int, smaller: int | None
) -> None:
    run = make_run(tmp_path, {stage: {"bs": bs}})
    number = STAGE_NAMES.index(stage)
    for before in STAGES[:number]:
        run_stage(run, before, Reporter())
    tiny_stages.act[stage] = lambda _: bytearray(1 << 62)
    with pytest.raises(OutOfMemoryError) as caught:
        run_stage(run, STAGES[number], Reporter())
    assert re.findall(rf"{stage}\.bs=(\d+)", caught.value.mend) == ([] if smaller is None else [str(smaller)])


def test_what_a_killed_library_left_behind_is_not_sealed(tmp_path: Path, tiny_stages: TinyStages) -> None:
    """safetensors writes to a temporary file of its own; a kill leaves it in the work folder."""
    run = make_run(tmp_path)

    def die(context: StageContext) -> None:
        (context.work / ".tmpX3fq").write_text("half a file")
        (context.work / "half").mkdir()
        (context.resume / "kept").write_text("for the next attempt")
        raise KeyboardInterrupt

    tiny_stages.act["prepare_corpus"] = die
    with pytest.raises(KeyboardInterrupt):
        run_stage(run, STAGES[0], Reporter())
    tiny_stages.act["prepare_corpus"] = lambda context: (context.resume / "kept").read_text()
    assert set(run_stage(run, STAGES[0], Reporter()).manifest.files) == {"payload.json"}


def test_an_attempt_with_checkpoints_is_not_thrown_away_unasked(tmp_path: Path, tiny_stages: TinyStages) -> None:
    run, other = make_run(tmp_path), make_run(tmp_path, {"finetune_lm": {"wd": 0.5}})

    def stop(context: StageContext) -> None:
        (context.resume / "checkpoints" / "checkpoint-00000001").mkdir(parents=True)
        raise KeyboardInterrupt

    tiny_stages.act["finetune_lm"] = stop
    with pytest.raises(KeyboardInterrupt):
        run_all(run)
    del tiny_stages.act["finetune_lm"]
    expected = r"lm-fwd has an unfinished attempt with other settings: finetune_lm\.wd was 0\.01, now 0\.5\..*--force"
    with pytest.raises(InputError, match=expected):
        run_all(other)
    found = status(other)[3]
    assert (found.state, found.why) == (
        "stale", "an unfinished attempt had other settings: finetune_lm.wd was 0.01, now 0.5"
    )
    assert status(run)[3].state == "partial"
    run_stage(other, STAGES[3], Reporter(), force=True)
    assert status(other)[3].state == "sealed"


def test_a_defect_stays_what_it_is(tmp_path: Path, tiny_stages: TinyStages) -> None:
    tiny_stages.act["prepare_corpus"] = lambda _: ALL.index("no stage")
    with pytest.raises(ValueError, match="no stage"):
        run_stage(make_run(tmp_path), STAGES[0], Reporter())


def test_stages_are_selected_in_order() -> None:
    assert [s.name for s in select("tokenize_corpus", "finetune_lm")] == ALL[1:4]
    assert select(None, None) == STAGES
    with pytest.raises(UsageError, match=r"There is no stage 'tokenise'\. Did you mean 'tokenize_corpus'\? Stages"):
        select("tokenise", None)
    with pytest.raises(UsageError, match=r"--from finetune_lm comes after --until tokenize_corpus\. Exchange"):
        select("finetune_lm", "tokenize_corpus")


def test_every_expected_error_has_an_exit_code_of_its_own() -> None:
    codes = [cls.exit_code for cls in PipelineError.__subclasses__()]
    assert sorted(codes) == sorted(set(ExitCode) - {ExitCode.SEALED})


def test_what_an_artifact_was_made_of_is_found_through_links(tiny_stages: TinyStages, tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", name="first")
    run_all(first)
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/home").mkdir()
    (tmp_path / "link").symlink_to("deep/er/home")
    given = {"inputs": {slot: str(first.path(slot)) for slot in ("corpus", "ids")}}
    second = make_run(tmp_path / "link", given, name="second")
    run_stages(second, STAGES[3:], Reporter())
    made = artifacts.open_artifact(second.path("classifier"), "classifier")
    assert made.manifest.inputs["lm"].path == "models/second/lm-fwd"
    # As earlier versions wrote it: up from the link by its name.
    before = made.manifest.inputs["ids"].model_copy(update={"path": "../first/data/first/ids"})
    earlier = artifacts.Artifact(
        made.path, made.manifest.model_copy(update={"inputs": made.manifest.inputs | {"ids": before}})
    )
    link, home = tmp_path / "link", tmp_path / "deep/er/home"
    for artifact, place in ((made, link), (made, home), (earlier, link)):
        found = [one.role for one in chain_to(artifact, place) if one.manifest is not None]
        assert found == ["ids", "lm", "classifier"]
