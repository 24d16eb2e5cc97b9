"""The command line: every command's help, exit codes, remembered arguments, variants, status and start-up."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_stages import TinyStages
from typer.testing import CliRunner, Result

from pipeline import stopping
from pipeline.artifact import hash_file
from pipeline.cli import PROGRAM, app
from pipeline.errors import DataError, ExitCode
from pipeline.lock import locked
from pipeline.recipe import load_recipe, shipped_recipes
from pipeline.stage import ENSEMBLE, STAGE_NAMES, STAGES, Stage
from pipeline.training_settings import FinetuneLMSettings

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "run", *STAGE_NAMES, "evaluate_ensemble", "status", "submit", "report", "results", "predict", "explain", "generate",
    "embed", "neighbours", "tokens", "serve", "import-fastai", "find-lr", "export", "push", "import-huggingface",
    "pack", "compare", "benchmark", "recipes",
)
RECIPE = """
description = "for tests"
[prepare_corpus]
kind = "human-numbers"
"""
VARIANTS = """
[tokenize_corpus]
tokenizer = "subword"
[variants.word.tokenize_corpus]
tokenizer = "word"
[variants.char.tokenize_corpus]
tokenizer = "char"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with recipes `mine.toml` and `several.toml`, and a wide enough terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("mine.toml").write_text(RECIPE, encoding="utf-8")
    Path("several.toml").write_text(RECIPE + VARIANTS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def tiny_stages(monkeypatch: pytest.MonkeyPatch) -> TinyStages:
    return TinyStages.in_place(monkeypatch)


def call(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), prog_name=PROGRAM)


def good(*args: str) -> Result:
    result = call(*args)
    assert result.exit_code == 0, result.output
    return result


def in_process_of_its_own(*args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *args], capture_output=True, text=True, check=False, env=environment
    )


def without_the_rights_of_root(*args: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that permissions bind, also where the tests are run by root."""
    code = (
        "import ctypes, os, sys\n"
        "for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH\n"
        "    ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'pipeline', *sys.argv[1:]])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def status_of(*args: str) -> dict[str, dict[str, object]]:
    found = json.loads(good("status", "--json", *args).stdout)
    assert set(found) == {"run", "stages"}
    for stage in found["stages"]:
        assert set(stage) == {"stage", "state", "why", "fingerprint", "metrics", "next", "job"}
        assert stage["state"] in ("sealed", "partial", "stale", "missing")
        assert (stage["next"] is None) == (stage["state"] == "sealed")
    return {stage["stage"]: stage for stage in found["stages"]}


def states(*args: str) -> list[object]:
    return [stage["state"] for stage in status_of(*args).values()]


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    text = good(command, "--help").stdout
    assert text.startswith(f"Usage: {PROGRAM} {command} ")
    assert command in good("--help").stdout


def test_there_are_no_other_commands() -> None:
    assert [c.name or c.callback.__name__ for c in app.registered_commands if c.callback] == list(COMMANDS)


@pytest.mark.parametrize("stage", [*STAGES, ENSEMBLE], ids=lambda s: s.name)
def test_the_help_of_a_stage_tells_every_setting_it_uses(stage: Stage) -> None:
    words = good(stage.name, "--help").stdout.split()
    section = getattr(load_recipe("mine.toml"), stage.name)
    for key, field in type(section).model_fields.items():
        assert key in words
        assert " ".join((field.description or "").split()[:3]) in " ".join(words)
    for key in stage.run_settings:
        assert key in words


def test_help_tells_type_and_default() -> None:
    text = " ".join(good("finetune_lm", "--help").stdout.split())
    default = FinetuneLMSettings().drop_mult
    assert f"drop_mult float >= 0 Factor on every dropout probability. [default {default}]" in text
    assert "train_last int >= 1 or none" in text


def test_options_of_all_stages_are_those_of_run_without_from_and_until() -> None:
    def options(command: str) -> set[str]:
        return set(re.findall(r"^  (--[a-z-]+)", good(command, "--help").stdout, re.MULTILINE))

    own = {"prepare_corpus": {"--download-only", "--offline", "--shard"}, "tokenize_corpus": {"--shard"}}
    for stage in STAGE_NAMES:
        assert options(stage) - own.get(stage, set()) == options("run") - {"--from", "--until", "--offline"}
        assert own.get(stage, set()) <= options(stage)


@pytest.mark.parametrize("script", [*STAGE_NAMES, "evaluate_ensemble", "run_all"])
def test_scripts_have_the_help_of_their_command(script: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / f"{script}.py"), "--help"],
        capture_output=True, text=True, check=True, env=environment, cwd=tmp_path,
    )
    command = good("run" if script == "run_all" else script, "--help").stdout
    assert "".join(done.stdout.split()) == "".join(command.split())  # the runner's lines are two columns longer


# --- start-up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("--help",), ("finetune_lm", "--help"), ("status", "--recipe", "mine.toml"),
                                  ("run", "--recipe", "mine.toml", "--dry-run"), ("recipes",)], ids=" ".join)
def test_nothing_heavy_is_imported_to_answer_at_once(args: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom pipeline.cli import app\n"
        f"app({list(args)!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'fastai', 'fastcore', 'spacy', 'pyarrow', 'sklearn', 'numpy', 'scipy', 'pandas', 'httpx'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("file", ["pipeline/__main__.py", "scripts/run_all.py", "scripts/tokenize_corpus.py"])
def test_worker_processes_do_not_import_the_command_line(file: str) -> None:
    # As multiprocessing does in every process that it starts, with the file that Python was called with.
    code = f"import runpy, sys\nrunpy.run_path({str(ROOT / file)!r}, run_name='__mp_main__')\n"
    code += "assert not {'typer', 'pipeline.cli'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- exit codes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("frobnicate",), ExitCode.USAGE, "No such command 'frobnicate'"),
        (("finetune-lm",), ExitCode.USAGE, "Did you mean 'finetune_lm'?"),
        (("run", "--recipes", "x"), ExitCode.USAGE, "No such option: --recipes"),
        (("run", "--recipe", "mine"), ExitCode.USAGE, "error: There is no recipe 'mine'."),
        (("run", "--from", "tokenise"), ExitCode.USAGE, "error: There is no stage 'tokenise'. Did you mean"),
        (("run", "--until", "evaluate_ensemble"), ExitCode.USAGE, "error: evaluate_ensemble follows the stages that "
         "--from and --until choose from. Leave out --until: it comes last by itself. Alone it is: python -m pipeline "
         "evaluate_ensemble."),
        (("run", "--recipe", "mine.toml", "--set", "run.sed=1"), ExitCode.USAGE, "Did you mean 'run.seed'?"),
        (("run", "--recipe", "mine.toml", "--run", "../x"), ExitCode.USAGE, "error: '../x' cannot name a run. Use"),
        (("run", "--recipe", "mine.toml", "--variant", "x"), ExitCode.USAGE, "has no variant 'x'."),
        (("recipes", "--variant", "x"), ExitCode.USAGE, "error: --set and --variant need the name of a recipe."),
        (("export", "--to", "huggingface", "--lm", "a", "--evaluation", "b", "--output", "c"), ExitCode.USAGE,
         "error: --evaluation is of a classifier, and --lm is a language model. Leave out one of the two."),
        (("export", "--to", "onnx", "--run", "a", "--split", "test", "--input", "b.txt", "--output", "c"),
         ExitCode.USAGE, "error: --split and --input both say what is compared. Give one of them."),
        (("status", "--run", "nope"), ExitCode.INPUT, "There are no runs here yet: python -m pipeline run."),
        (("tokenize_corpus", "--recipe", "mine.toml"), ExitCode.INPUT,
         "Make it first: python -m pipeline run --recipe mine.toml --until prepare_corpus"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_expected_errors_are_sentences_with_an_exit_code(args: tuple[str, ...], code: int, message: str) -> None:
    result = call(*args)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.exit_code == code
    assert result.stdout == ""


def test_exit_codes_reach_the_shell() -> None:
    bad = in_process_of_its_own("run", "--recipe", "mine")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert re.fullmatch(r"error: There is no recipe 'mine'\. .*\n", bad.stderr)
    nope = in_process_of_its_own("status", "--run", "nope")
    assert nope.returncode == 3
    assert nope.stderr.startswith("error: There is no run 'nope' in ")
    with locked(Path("data/mine/corpus")):
        refused = in_process_of_its_own("run", "--recipe", "mine.toml")
    assert refused.returncode == 8
    assert f"data/mine/corpus is being written by process {os.getpid()} on host" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_cannot_be_read_or_written_is_a_storage_error(tiny_stages: TinyStages) -> None:
    table = ("--recipe", "mine.toml", "--set", "prepare_corpus.kind=table", "--source", "a.csv")
    Path("a.csv").write_text("text,label\na,b\n", encoding="utf-8")
    good("prepare_corpus", "--recipe", "mine.toml", "--run", "sealed")
    good("prepare_corpus", "--recipe", "mine.toml", "--run", "closed")
    Path("home").mkdir()
    Path("home").chmod(0o555)
    for path in ("a.csv", "data/sealed/corpus/manifest.json", "data/closed"):
        Path(path).chmod(0)
    try:
        for args, path in (
            (("status", *table), "a.csv"), (("prepare_corpus", *table, "--run", "t"), "a.csv"),
            (("status", "--run", "sealed"), "data/sealed/corpus/manifest.json"),
            (("status", "--run", "closed"), "data/closed/run.json"),
            (("prepare_corpus", "--recipe", "sample", "--download-only", "--home", "home"), "home/data"),
        ):
            refused = without_the_rights_of_root(*args)
            assert refused.returncode == ExitCode.STORAGE, refused.stderr
            assert f"error: {args[0]} could not read or write (" in refused.stderr
            assert f"{path}): Permission denied. Free some space or mend the permissions" in refused.stderr
            assert "Traceback" not in refused.stderr
    finally:
        Path("data/closed").chmod(0o755)
        Path("home").chmod(0o755)


def test_a_path_that_cannot_be_is_a_sentence(tiny_stages: TinyStages) -> None:
    table = ("prepare_corpus", "--recipe", "mine.toml", "--set", "prepare_corpus.kind=table", "--source")
    Path("a.csv").write_text("in the way", encoding="utf-8")
    Path("models").mkdir()
    Path("models/mine").write_text("in the way", encoding="utf-8")
    for args, code, message in (
        ((*table, "a.csv/x"), ExitCode.INPUT, "a.csv/x. Give the right path with --source."),
        ((*table, "x" * 300), ExitCode.INPUT, "x. Give the right path with --source."),
        (("status", "--run", "x" * 300), ExitCode.STORAGE, "): File name too long. Correct the path"),
        (("run", "--recipe", "mine.toml"), ExitCode.STORAGE, "(models/mine): File exists. Correct the path, or move"),
        (("prepare_corpus", "--recipe", "sample", "--download-only", "--home", "a.csv"), ExitCode.STORAGE,
         "(a.csv/data/downloads): Not a directory. Correct the path"),
    ):
        result = call(*args)
        assert message in result.stderr
        assert result.exit_code == code


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "pipeline", "recipes", "--settings"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1


def test_an_interrupt_says_how_to_go_on(tiny_stages: TinyStages) -> None:
    def wait_for_a_signal(_: object) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        while stopping.asked() is None:
            time.sleep(0.01)
        stopping.check("tokenize_corpus")

    tiny_stages.act["tokenize_corpus"] = wait_for_a_signal
    stopped = call("run", "--recipe", "mine.toml")
    assert stopped.exit_code == ExitCode.STOPPED
    assert "SIGUSR1: saving and stopping; a second signal ends at once\n" in stopped.stderr
    assert stopped.stderr.endswith("tokenize_corpus was stopped by SIGUSR1. The same command goes on.\n")
    del tiny_stages.act["tokenize_corpus"]
    tiny_stages.calls.clear()
    good("run", "--recipe", "mine.toml")
    assert tiny_stages.calls[0] == ("tokenize_corpus", True)


def test_errors_of_a_stage_keep_their_code_and_defects_their_traceback(tiny_stages: TinyStages) -> None:
    def refuse(_: object) -> None:
        raise DataError("The corpus has one class only.", "Give at least two.")

    tiny_stages.act["prepare_corpus"] = refuse
    refused = call("run", "--recipe", "mine.toml")
    assert refused.exit_code == ExitCode.DATA
    assert refused.stderr.endswith("error: The corpus has one class only. Give at least two.\n")
    tiny_stages.act["prepare_corpus"] = lambda _: STAGE_NAMES.index("no stage")
    assert isinstance(call("run", "--recipe", "mine.toml").exception, ValueError)


# --- run ----------------------------------------------------------------------------------------


def test_run_goes_through_all_stages_and_then_does_nothing(tiny_stages: TinyStages) -> None:
    first = good("run", "--recipe", "mine.toml", "--until", "finetune_lm")
    assert tiny_stages.ran == list(STAGE_NAMES[:4])
    assert "lm          models/mine/lm-fwd" in first.stdout
    again = good("run", "--recipe", "mine.toml", "--until", "finetune_lm")
    assert tiny_stages.ran == []
    assert again.stderr.count("nothing changed") == 4
    assert again.stdout == first.stdout
    good("run", "--recipe", "mine.toml", "--from", "train_classifier", "--until", "train_classifier")
    assert tiny_stages.ran == ["train_classifier"]


def test_a_full_run_prints_its_results(tiny_stages: TinyStages) -> None:
    text = good("run", "--recipe", "mine.toml").stdout
    for expected in ("80.00 %", "77.00 %", "58.00 %", "2,500 test documents", "30.50", "models/mine/evaluation",
                     "data/mine/corpus", "models/mine/classifier-fwd"):
        assert expected in text
    until_lm = good("finetune_lm", "--recipe", "mine.toml").stdout
    assert re.search(r"perplexity +30\.5000", until_lm)
    assert re.search(r"bits per character +1\.5000", until_lm)


def test_a_dry_run_tells_all_and_touches_nothing(folder: Path, tiny_stages: TinyStages) -> None:
    before = sorted(folder.rglob("*"))
    text = good("run", "--recipe", "mine.toml", "--dry-run").stdout
    assert text.count("would run\n") == 6
    assert "    missing: not run yet\n    python -m pipeline finetune_lm --recipe mine.toml\n" in text
    assert sorted(folder.rglob("*")) == before
    good("run", "--recipe", "mine.toml")
    after = sorted(folder.rglob("*"))
    changed = ("run", "--recipe", "mine.toml", "--set", "finetune_lm.wd=0.5", "--dry-run")
    text = good(*changed).stdout
    assert text.count("would be skipped\n") == 3
    assert "would stop and ask for --force" in text
    assert "stale: finetune_lm.wd was 0.01, now 0.5" in text
    assert good(*changed, "--force").stdout.count("would be replaced\n") == 3
    assert sorted(folder.rglob("*")) == after


def test_artifacts_given_in_the_recipe_are_not_made(tiny_stages: TinyStages) -> None:
    good("run", "--recipe", "mine.toml")
    tiny_stages.calls.clear()
    good("run", "--recipe", "mine.toml", "--run", "second", "--set", "inputs.lm=models/mine/lm-fwd", "--set",
         "inputs.ids=data/mine/ids", "--set", "inputs.corpus=data/mine/corpus")
    assert tiny_stages.ran == ["train_classifier", "evaluate_classifier"]
    found = json.loads(good("status", "--run", "second", "--json").stdout)["stages"]
    assert [s["next"] for s in found] == [None] * 6
    assert found[1]["why"] == "not needed: the recipe's [inputs] name what comes after it"


def test_home_is_where_everything_goes(tmp_path: Path, tiny_stages: TinyStages) -> None:
    good("prepare_corpus", "--recipe", "mine.toml", "--home", "elsewhere")
    assert (tmp_path / "elsewhere" / "data" / "mine" / "corpus" / "manifest.json").is_file()
    assert not (tmp_path / "data").exists()
    assert states("--run", "mine", "--home", "elsewhere")[0] == "sealed"


def test_a_tilde_that_the_shell_leaves_is_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_stages: TinyStages
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    good("run", "--recipe", "mine.toml", "--home=~/runs", "--until", "finetune_lm")
    assert (tmp_path / "user/runs/data/mine/corpus/manifest.json").is_file()
    assert f"next: python -m pipeline run --recipe mine.toml --home {tmp_path}/user/runs\n" in good(
        "status", "--recipe", "mine.toml", "--home=~/runs"
    ).stdout
    assert call("report", "--run", "mine", "--home=~/other").stderr.startswith(
        f"error: There is no run 'mine' in {tmp_path}/user/other."
    )
    tiny_stages.calls.clear()
    given = (f"inputs.{slot}=~/runs/data/mine/{slot}" for slot in ("corpus", "ids"))
    good("run", "--recipe", "mine.toml", *(word for one in given for word in ("--set", one)), "--until", "finetune_lm")
    assert tiny_stages.ran == ["finetune_lm"]
    assert not Path("~").exists()
    assert remembered("mine")["set"][0] == "inputs.corpus=user/runs/data/mine/corpus"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75), (signal.SIGINT, 75)])
def test_a_stopped_run_goes_on(sent: signal.Signals, code: int) -> None:
    settings = ("--set", "tokenize_corpus.tokenizer=char")
    command = ("run", "--recipe", "human-numbers", "--until", "tokenize_corpus", *settings)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *command], env=environment, text=True, start_new_session=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        # A shell's background jobs ignore Ctrl-C, and so would their children; no thread runs here yet.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as running:
        assert running.stderr
        lines = []
        for line in running.stderr:
            lines.append(line)
            if line.startswith("tokenize_corpus: starting"):
                os.kill(running.pid, sent)
    assert running.returncode == code
    stopped = rf"tokenize_corpus.* was stopped by {sent.name}\. The same command goes on\.\n"
    assert any(re.fullmatch(stopped, line) for line in lines) == (code == ExitCode.STOPPED)
    assert "Traceback" not in "".join(lines)
    assert states("--run", "human-numbers")[:3] == ["sealed", "partial", "missing"]
    on = in_process_of_its_own(*command)
    assert on.returncode == 0, on.stderr
    assert "prepare_corpus: nothing changed" in on.stderr
    assert "tokenize_corpus: going on" in on.stderr
    assert states("--run", "human-numbers")[:3] == ["sealed", "sealed", "missing"]
    assert {p.name for p in Path("data/human-numbers").iterdir() if not p.name.endswith(".lock")} == {
        "corpus", "tokens", "run.json"
    }


# --- remembered arguments -----------------------------------------------------------------------


def remembered(run: str) -> dict[str, object]:
    return json.loads(Path("data", run, "run.json").read_text(encoding="utf-8"))


def test_arguments_are_remembered_until_a_recipe_is_named(tiny_stages: TinyStages) -> None:
    good("prepare_corpus", "--recipe", "mine.toml", "--run", "x", "--set", "run.seed=7", "--set", "finetune_lm.wd=0.5")
    assert remembered("x") == {
        "recipe": "mine.toml", "set": ["run.seed=7", "finetune_lm.wd=0.5"], "variant": None, "source": None,
        "protocol": "honest",
    }
    again = good("run", "--run", "x", "--until", "tokenize_corpus", "--set", "finetune_lm.wd=0.4")
    arguments = "--recipe mine.toml --run x --set run.seed=7 --set finetune_lm.wd=0.4"
    assert f"run x with the arguments of its last command: {arguments}\n" in again.stderr
    assert tiny_stages.ran == ["prepare_corpus", "tokenize_corpus"]
    assert remembered("x")["set"] == ["run.seed=7", "finetune_lm.wd=0.4"]
    good("tokenize_corpus", "--recipe", "mine.toml", "--run", "x", "--set", "run.seed=7")
    assert remembered("x")["set"] == ["run.seed=7"]


def test_what_is_named_anew_has_the_last_word_over_what_is_remembered(tiny_stages: TinyStages) -> None:
    for name in ("a.txt", "b.txt"):
        Path(name).write_text(name, encoding="utf-8")
    kind = ("--set", "prepare_corpus.kind=plain-text")
    good("prepare_corpus", "--recipe", "mine.toml", "--run", "y", *kind, "--source", "a.txt",
         "--set", "train_classifier.phases.0.lr=0.5")
    refused = call("prepare_corpus", "--run", "y", "--set", "prepare_corpus.source=b.txt")
    assert refused.exit_code == ExitCode.INPUT
    assert "its source changed" in refused.stderr
    phases = 'train_classifier.phases=[{name="new", lr=0.01}]'
    good("prepare_corpus", "--run", "y", "--set", "prepare_corpus.source=b.txt", "--set", phases, "--force")
    assert remembered("y")["source"] is None
    assert remembered("y")["set"] == ["prepare_corpus.kind=plain-text", "prepare_corpus.source=b.txt", phases]
    good("prepare_corpus", "--run", "y", "--source", "b.txt")
    assert remembered("y") == {
        "recipe": "mine.toml", "set": ["prepare_corpus.kind=plain-text", phases], "variant": None, "source": "b.txt",
        "protocol": "honest",
    }


def test_a_stage_does_not_read_what_was_made_with_other_settings(tiny_stages: TinyStages) -> None:
    good("run", "--recipe", "mine.toml", "--until", "numericalize_corpus")
    other = ("--set", "tokenize_corpus.vocab_size=99")
    refused = call("finetune_lm", "--recipe", "mine.toml", *other)
    assert refused.exit_code == ExitCode.INPUT
    assert "would read data/mine/tokens, which does not fit: tokenize_corpus.vocab_size was" in refused.stderr
    assert f"run --recipe mine.toml {' '.join(other)} --until tokenize_corpus --force" in refused.stderr
    assert remembered("mine")["set"] == []
    tiny_stages.calls.clear()
    good("run", "--recipe", "mine.toml", *other, "--until", "tokenize_corpus", "--force")
    assert tiny_stages.ran == ["tokenize_corpus"]
    ids = Path("data/mine/ids")
    good("finetune_lm", "--run", "mine", "--set", f"inputs.ids={ids}")  # named by the user: used as it lies


def test_what_inputs_name_is_looked_at_before_anything_is_made(tiny_stages: TinyStages) -> None:
    good("prepare_corpus", "--recipe", "mine.toml", "--run", "other")
    tiny_stages.calls.clear()
    for slot, path, message in (
        ("start_lm", "models/nowhere/lm-fwd", "tokenize_corpus needs models/nowhere/lm-fwd, which is not there"),
        ("lm", "models/nowhere/lm-fwd", "train_classifier needs models/nowhere/lm-fwd, which is not there"),
        ("lm", "data/other/corpus", "data/other/corpus holds corpus, not lm."),
        ("lm", "data/other", "data/other is not a sealed artifact: it has no manifest.json."),
    ):
        refused = call("run", "--recipe", "mine.toml", "--set", f"inputs.{slot}={path}")
        assert (refused.exit_code, tiny_stages.ran) == (ExitCode.INPUT, [])
        assert message in refused.stderr
    assert not Path("data/mine/run.json").exists()
    rows = status_of("--recipe", "mine.toml", "--set", "inputs.lm=data/other/corpus")
    assert rows["finetune_lm"]["state"] == "missing"
    assert rows["finetune_lm"]["why"] == "the recipe names data/other/corpus, which holds corpus, not lm"


def test_a_link_to_nothing_is_told_before_the_work(tiny_stages: TinyStages) -> None:
    Path("data/mine").mkdir(parents=True)
    Path("data/mine/corpus").symlink_to("/nowhere/x")
    refused = call("prepare_corpus", "--recipe", "mine.toml")
    assert (refused.exit_code, tiny_stages.ran) == (ExitCode.INPUT, [])
    assert refused.stderr == (
        "error: data/mine/corpus is a link to /nowhere/x, which is not there. Remove it: rm data/mine/corpus\n"
    )


def test_a_source_is_not_hashed_for_stages_before_the_first(
    tiny_stages: TinyStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.txt").write_text("a text", encoding="utf-8")
    hashed: list[Path] = []
    monkeypatch.setattr("pipeline.corpus.source.hash_file", lambda path: hashed.append(path) or hash_file(path))
    good("prepare_corpus", "--recipe", "mine.toml", "--set", "prepare_corpus.kind=plain-text", "--source", "a.txt")
    assert len(hashed) == 2  # to see that nothing is refused, and to make it


def test_a_refused_request_is_not_remembered(tiny_stages: TinyStages) -> None:
    good("run", "--recipe", "mine.toml", "--until", "finetune_lm")
    assert call("run", "--recipe", "mine.toml", "--set", "run.seed=7").exit_code == ExitCode.INPUT
    assert remembered("mine")["set"] == []
    good("run", "--run", "mine", "--until", "finetune_lm")
    good("run", "--run", "mine", "--until", "finetune_lm", "--set", "run.seed=7", "--force")
    assert remembered("mine")["set"] == ["run.seed=7"]


def test_a_request_for_what_another_process_makes_is_not_remembered(tiny_stages: TinyStages) -> None:
    good("run", "--recipe", "mine.toml", "--until", "numericalize_corpus")
    with locked(Path("models/mine/lm-fwd")):
        refused = call("run", "--recipe", "mine.toml", "--set", "finetune_lm.bs=8")
    assert refused.exit_code == ExitCode.LOCKED
    assert remembered("mine")["set"] == []


def test_what_nobody_remembers_is_not_taken_for_the_sample(tiny_stages: TinyStages) -> None:
    good("run", "--recipe", "mine.toml")
    Path("models/copy").mkdir()
    told = "error: Nothing tells how the run copy was made. Name its recipe: --recipe NAME|FILE.\n"
    for command in ("status", "run", "report"):
        refused = call(command, "--run", "copy")
        assert (refused.exit_code, refused.stderr) == (ExitCode.USAGE, told)
    good("status", "--run", "copy", "--recipe", "mine.toml")


def test_a_renamed_run_of_a_variant_has_to_end_in_its_name(tiny_stages: TinyStages) -> None:
    good("run", "--recipe", "several.toml", "--variant", "char")
    for kind in ("data", "models"):
        Path(kind, "several-char").rename(Path(kind, "renamed"))
    refused = call("run", "--run", "renamed")
    assert refused.exit_code == ExitCode.USAGE
    assert "renamed was made as variant char, and its name does not end so. Rename its folders to" in refused.stderr
    for kind in ("data", "models"):
        Path(kind, "renamed").rename(Path(kind, "new-char"))
    Path("data/several").rename("data/new")
    assert states("--run", "new-char") == ["sealed"] * 6


def test_a_recipe_without_its_suffix_is_told_as_such() -> None:
    refused = call("run", "--recipe", "recipes/mine")
    assert "recipes/mine" in refused.stderr
    assert "cannot name a run" not in refused.stderr


def test_a_damaged_memory_names_the_way_out(tiny_stages: TinyStages) -> None:
    good("prepare_corpus", "--recipe", "mine.toml")
    Path("data/mine/run.json").write_text("{", encoding="utf-8")
    result = call("run", "--run", "mine")
    assert result.exit_code == ExitCode.INPUT
    assert result.stderr == "error: data/mine/run.json is damaged. Name the recipe of the run with --recipe.\n"


def test_a_folder_that_cannot_be_written_is_a_storage_error(tiny_stages: TinyStages) -> None:
    Path("data").write_text("in the way")
    result = call("prepare_corpus", "--recipe", "mine.toml")
    assert result.exit_code == ExitCode.STORAGE
    assert "prepare_corpus could not read or write (data/mine): " in result.stderr


def test_a_run_without_recipe_and_memory_is_the_sample(tiny_stages: TinyStages) -> None:
    assert "sample" in shipped_recipes()
    good("prepare_corpus", "--run", "new", "--set", "prepare_corpus.kind=human-numbers")
    assert remembered("new")["recipe"] == "sample"


def test_a_run_with_the_name_of_a_recipe_and_without_memory_is_that_recipe(tiny_stages: TinyStages) -> None:
    """As in "Make it first: run --run imdb"."""
    good("prepare_corpus", "--run", "human-numbers")
    assert remembered("human-numbers")["recipe"] == "human-numbers"


def test_source_is_short_for_a_setting(tiny_stages: TinyStages) -> None:
    name = 'a "quoted" büch.txt'
    Path(name).write_text("text", encoding="utf-8")
    kind = ("--set", "prepare_corpus.kind=plain-text")
    good("prepare_corpus", "--recipe", "mine.toml", *kind, "--source", name)
    assert remembered("mine")["source"] == name
    good("prepare_corpus", "--recipe", "mine.toml", *kind, "--set", f"prepare_corpus.source={name}")
    assert tiny_stages.ran == ["prepare_corpus"]
    assert call("prepare_corpus", "--recipe", "mine.toml", *kind, "--source", "no.txt").exit_code == ExitCode.INPUT


# --- status -------------------------------------------------------------------------------------


def test_the_next_command_leads_from_state_to_state(tiny_stages: TinyStages) -> None:
    arguments = ("--recipe", "mine.toml", "--run", "a_b", "--set", "prepare_corpus.text_column=a b")
    found = status_of(*arguments)
    assert [s["state"] for s in found.values()] == ["missing"] * 6
    for stage in STAGE_NAMES:
        command = shlex.split(str(found[stage]["next"]))
        assert command[:4] == ["python", "-m", "pipeline", stage]
        good(*command[3:])
        assert tiny_stages.ran == [stage]
        found = status_of(*arguments)
        assert found[stage]["state"] == "sealed"
        assert "size_bytes" in found[stage]["metrics"]  # type: ignore[operator]
    assert states(*arguments) == ["sealed"] * 6
    stale = status_of(*arguments, "--set", "numericalize_corpus.max_vocab=100")
    assert [s["state"] for s in stale.values()] == ["sealed"] * 2 + ["stale"] * 4
    good(*shlex.split(str(stale["evaluate_classifier"]["next"]))[3:])
    assert tiny_stages.ran == list(STAGE_NAMES[2:])


def test_the_table_shows_state_reason_metrics_and_the_next_command(tiny_stages: TinyStages) -> None:
    good("prepare_corpus", "--recipe", "mine.toml")
    lines = good("status", "--run", "mine").stdout.splitlines()
    assert lines[0].split() == ["stage", "state", "why", "metrics", "age"]
    assert re.fullmatch(r"prepare_corpus +sealed +nothing changed +documents 1,234 +0:0\d", lines[1])
    assert re.fullmatch(r"tokenize_corpus +missing +not run yet", lines[2])
    assert lines[-1] == "next: python -m pipeline run --recipe mine.toml"
    good("run", "--run", "mine", "--until", "numericalize_corpus")
    stale = good("status", "--run", "mine", "--set", "tokenize_corpus.tokenizer=char").stdout.splitlines()
    assert stale[-1].endswith("--set tokenize_corpus.tokenizer=char --force")


def test_status_of_a_run_nobody_made_names_those_there_are(tiny_stages: TinyStages) -> None:
    good("prepare_corpus", "--recipe", "mine.toml")
    result = call("status", "--run", "mien")
    assert result.exit_code == ExitCode.INPUT
    assert result.stderr.endswith("Runs here: mine.\n")


def test_a_replacement_that_was_stopped_asks_for_force_again(tiny_stages: TinyStages) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    good("run", "--recipe", "mine.toml", "--until", "tokenize_corpus")
    changed = ("--recipe", "mine.toml", "--set", "tokenize_corpus.tokenizer=char")
    tiny_stages.act["tokenize_corpus"] = interrupt
    assert call("tokenize_corpus", *changed, "--force").exit_code == ExitCode.STOPPED
    del tiny_stages.act["tokenize_corpus"]
    found = status_of("--run", "mine")["tokenize_corpus"]
    assert found["state"] == "partial"
    tiny_stages.calls.clear()
    good(*shlex.split(str(found["next"]))[3:])
    assert tiny_stages.calls == [("tokenize_corpus", True)]


# --- variants -----------------------------------------------------------------------------------


def test_variants_are_runs_of_their_own_on_one_corpus(tiny_stages: TinyStages) -> None:
    good("run", "--recipe", "several.toml", "--until", "tokenize_corpus")
    assert tiny_stages.ran == ["prepare_corpus", "tokenize_corpus", "tokenize_corpus"]
    found = {p.parent.relative_to("data").as_posix() for p in Path("data").rglob("manifest.json")}
    assert found == {"several/corpus", "several-word/tokens", "several-char/tokens"}
    rows = status_of("--run", "several")
    assert list(rows)[:2] == ["prepare_corpus", "tokenize_corpus[word]"]
    assert len(rows) == 1 + 2 * 5
    assert [s["state"] for s in rows.values()].count("sealed") == 3
    good("run", "--run", "several", "--until", "tokenize_corpus")
    assert tiny_stages.ran == []


def test_one_variant_runs_alone(tiny_stages: TinyStages) -> None:
    missing = call("tokenize_corpus", "--recipe", "several.toml", "--variant", "char")
    assert missing.exit_code == ExitCode.INPUT
    assert missing.stderr.endswith("Make it first: python -m pipeline prepare_corpus --recipe several.toml\n")
    good("run", "--recipe", "several.toml", "--variant", "char")
    assert tiny_stages.ran == list(STAGE_NAMES)
    assert not Path("data/several-word").exists()
    assert json.loads(good("status", "--run", "several-char", "--json").stdout)["run"] == "several-char"
    assert states("--run", "several-char") == ["sealed"] * 6
    assert remembered("several-char")["variant"] == "char"
    good("run", "--run", "several-char")
    assert tiny_stages.ran == []
    rows = status_of("--run", "several")
    command = shlex.split(str(rows["evaluate_classifier[word]"]["next"]))
    assert command[3:] == ["run", "--recipe", "several.toml", "--variant", "word"]
    good(*command[3:])
    assert tiny_stages.ran == list(STAGE_NAMES[1:])
    assert good("status", "--run", "several").stdout.endswith("next: nothing to do, every stage is sealed\n")


def test_a_variant_with_another_corpus_has_its_own(tiny_stages: TinyStages) -> None:
    limited = "[variants.limited.prepare_corpus]\nlimit_per_split = 7\n"
    Path("other.toml").write_text(RECIPE + VARIANTS + limited, encoding="utf-8")
    good("run", "--recipe", "other.toml", "--until", "prepare_corpus")
    assert tiny_stages.ran == ["prepare_corpus"] * 2
    assert sorted(p.parent.parent.name for p in Path("data").rglob("manifest.json")) == ["other", "other-limited"]


SEEDS = """
[variants.a.run]
seed = 7
[variants.b.run]
seed = 8
direction = "bwd"
"""
NUMERICALIZED = ["prepare_corpus", "tokenize_corpus", "numericalize_corpus"]


@pytest.fixture
def seeds(tiny_stages: TinyStages) -> TinyStages:
    """A recipe `seeds.toml` whose variants are other trainings on the same ids."""
    Path("seeds.toml").write_text(RECIPE + SEEDS, encoding="utf-8")
    return tiny_stages


def test_variants_of_other_seeds_and_directions_share_what_they_learn_from(seeds: TinyStages) -> None:
    good("run", "--recipe", "seeds.toml", "--until", "finetune_lm")
    assert seeds.ran == [*NUMERICALIZED, "finetune_lm", "finetune_lm"]
    found = {p.parent.relative_to("data").as_posix() for p in Path("data").rglob("manifest.json")}
    assert found == {"seeds/corpus", "seeds/tokens", "seeds/ids"}
    lms = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(Path("models").rglob("manifest.json"))]
    assert [lm["settings"]["run"]["seed"] for lm in lms] == [7, 8]
    assert [lm["identity"]["direction"] for lm in lms] == ["fwd", "bwd"]
    assert len({lm["inputs"]["ids"]["fingerprint"] for lm in lms}) == 1
    rows = status_of("--run", "seeds")
    assert list(rows)[:4] == [*NUMERICALIZED, "finetune_lm[a]"]
    assert len(rows) == 3 + 2 * 3
    good("run", "--run", "seeds-b")
    assert seeds.ran == ["train_classifier", "evaluate_classifier"]
    assert states("--run", "seeds-b") == ["sealed"] * 6


@pytest.mark.parametrize(("until", "made"), [
    ("prepare_corpus", 1), ("tokenize_corpus", 2), ("numericalize_corpus", 3), ("finetune_lm", 3),
])
def test_what_is_shared_is_made_as_far_as_it_is_read(seeds: TinyStages, until: str, made: int) -> None:
    good("run", "--recipe", "seeds.toml", "--variant", "a", "--until", until)
    assert seeds.ran == [*NUMERICALIZED[:made], *STAGE_NAMES[made : STAGE_NAMES.index(until) + 1]]
    assert len(list(Path("data/seeds").rglob("manifest.json"))) == made


def test_variants_share_no_more_than_their_settings_allow(tiny_stages: TinyStages) -> None:
    variants = "[variants.few.numericalize_corpus]\nmin_freq = 9\n[variants.given.inputs]\nids = 'data/here/ids'\n"
    Path("part.toml").write_text(RECIPE + variants, encoding="utf-8")
    good("run", "--recipe", "mine.toml", "--run", "here", "--until", "numericalize_corpus")
    good("run", "--recipe", "part.toml", "--variant", "given", "--until", "finetune_lm")
    assert tiny_stages.ran == [*NUMERICALIZED, "finetune_lm"]
    assert not list(Path("data/part").rglob("manifest.json"))
    good("run", "--recipe", "part.toml", "--until", "finetune_lm")
    assert tiny_stages.ran == [*NUMERICALIZED, "finetune_lm"]
    found = {p.parent.relative_to("data").as_posix() for p in Path("data").rglob("manifest.json")}
    assert found == {"here/corpus", "here/tokens", "here/ids", "part/corpus", "part/tokens", "part-few/ids"}


def test_shared_ids_that_are_missing_are_made_by_the_command_that_is_named(seeds: TinyStages) -> None:
    refused = call("finetune_lm", "--recipe", "seeds.toml", "--variant", "a")
    assert refused.exit_code == ExitCode.INPUT
    assert "finetune_lm needs data/seeds/ids, which is not there or not sealed." in refused.stderr
    again = re.search(r"Make it first: python -m pipeline (.*)$", refused.stderr.strip())
    assert again
    good(*shlex.split(again[1]))
    assert seeds.ran == NUMERICALIZED
    good("finetune_lm", "--recipe", "seeds.toml", "--variant", "a")


def test_shared_tokens_and_ids_that_were_removed_make_nothing_stale(seeds: TinyStages) -> None:
    good("run", "--recipe", "seeds.toml")
    seeds.calls.clear()
    Path("data/seeds/tokens").rename("tokens")
    Path("data/seeds/ids").rename("ids")
    found = [row["state"] for row in status_of("--run", "seeds").values()]
    assert found == ["sealed", *["missing"] * 2, *["sealed"] * 6]
    good("run", "--run", "seeds")
    assert seeds.ran == NUMERICALIZED[1:]


def test_shared_tokens_of_other_settings_make_all_variants_stale(seeds: TinyStages) -> None:
    good("run", "--recipe", "seeds.toml")
    seeds.calls.clear()
    other = ("--recipe", "seeds.toml", "--set", "tokenize_corpus.tokenizer=char")
    rows = status_of(*other)
    assert [name for name, row in rows.items() if row["state"] == "sealed"] == ["prepare_corpus"]
    assert rows["finetune_lm[a]"]["why"] == "its input changed"
    refused = call("run", "--from", "finetune_lm", *other).stderr
    assert "finetune_lm would read data/seeds/tokens, which does not fit: tokenize_corpus.tokenizer was" in refused
    good("run", *other, "--force")
    assert seeds.ran == [*NUMERICALIZED[1:], *[stage for _ in "ab" for stage in STAGE_NAMES[3:]]]
    assert set(states(*other)) == {"sealed"}


def test_a_stale_shared_corpus_makes_all_variants_stale(tiny_stages: TinyStages) -> None:
    good("run", "--recipe", "several.toml")
    tiny_stages.calls.clear()
    seeded = ("--recipe", "several.toml", "--set", "run.seed=7")
    rows = status_of(*seeded)
    assert {s["state"] for s in rows.values()} == {"stale"}
    assert rows["tokenize_corpus[word]"]["why"] == "its input changed"
    good("run", *seeded, "--force")
    assert len(tiny_stages.ran) == 11
    assert set(states(*seeded)) == {"sealed"}


def test_a_shared_corpus_of_other_settings_is_not_read(tiny_stages: TinyStages) -> None:
    good("prepare_corpus", "--recipe", "several.toml")
    seeded = ("--recipe", "several.toml", "--set", "run.seed=7")
    for command in (("tokenize_corpus",), ("run", "--from", "tokenize_corpus")):
        refused = call(*command, *seeded, "--variant", "word")
        assert refused.exit_code == ExitCode.INPUT
        assert "tokenize_corpus would read data/several/corpus, which does not fit: run.seed was" in refused.stderr
        again = re.search(r"Make it anew first: python -m pipeline (.*)$", refused.stderr.strip())
        assert again
    good(*shlex.split(again[1]))
    good("tokenize_corpus", *seeded, "--variant", "word")
    dry = good("run", "--recipe", "several.toml", "--force", "--dry-run").stdout
    assert "nothing changed" not in dry
    assert dry.count("its input changed") == 1


# --- ensembles ----------------------------------------------------------------------------------


@pytest.fixture
def together(tiny_stages: TinyStages) -> TinyStages:
    """A recipe `together.toml` whose two variants are averaged."""
    members = '[evaluate_ensemble]\nmembers = ["word", "char"]\n'
    Path("together.toml").write_text(RECIPE + members + VARIANTS, encoding="utf-8")
    return tiny_stages


def test_one_command_makes_all_members_and_their_ensemble(together: TinyStages) -> None:
    done = good("run", "--recipe", "together.toml")
    assert together.ran == ["prepare_corpus", *STAGE_NAMES[1:], *STAGE_NAMES[1:], "evaluate_ensemble"]
    assert re.search(r"^word +80\.00 % .*\nensemble +82\.00 % ", done.stdout, re.MULTILINE)
    assert "models/together/ensemble" in done.stdout
    sealed = json.loads(Path("models/together/ensemble/manifest.json").read_text(encoding="utf-8"))
    assert {slot: record["path"] for slot, record in sealed["inputs"].items()} == {
        "member word": "models/together-word/evaluation", "member char": "models/together-char/evaluation"
    }
    again = good("run", "--run", "together")
    assert together.ran == []
    assert again.stderr.count("nothing changed") == 12


def test_status_shows_the_ensemble(together: TinyStages) -> None:
    rows = status_of("--recipe", "together.toml")
    assert list(rows)[-1] == "evaluate_ensemble"
    assert rows["evaluate_ensemble"]["next"] == "python -m pipeline run --recipe together.toml"
    good("run", "--recipe", "together.toml", "--until", "evaluate_classifier")
    assert states("--run", "together") == ["sealed"] * 11 + ["missing"]
    assert good("status", "--run", "together").stdout.endswith("next: python -m pipeline run --recipe together.toml\n")
    good("evaluate_ensemble", "--run", "together")
    lines = good("status", "--run", "together").stdout.splitlines()
    assert re.fullmatch(r"evaluate_ensemble +sealed +nothing changed +accuracy 0\.82 +0:0\d", lines[-2])
    changed = ("--recipe", "together.toml", "--set", "train_classifier.wd=0.5")
    rows = status_of(*changed)
    assert rows["evaluate_ensemble"]["why"] == "its input changed"
    assert str(rows["evaluate_ensemble"]["next"]).endswith("--set train_classifier.wd=0.5 --force")
    dry = good("run", *changed, "--force", "--dry-run").stdout
    assert "run together\n  evaluate_ensemble: would be replaced\n" in dry
    together.calls.clear()
    good(*shlex.split(str(rows["evaluate_ensemble"]["next"]))[3:])
    assert together.ran == ["train_classifier", "evaluate_classifier"] * 2 + ["evaluate_ensemble"]
    assert set(states(*changed)) == {"sealed"}
    assert status_of(*changed, "--set", "run.seed=7")["evaluate_ensemble"]["state"] == "stale"


def test_one_variant_alone_makes_no_ensemble(together: TinyStages) -> None:
    good("run", "--recipe", "together.toml", "--variant", "word")
    assert "evaluate_ensemble" not in together.ran
    assert "evaluate_ensemble" not in status_of("--run", "together-word")
    missing = call("evaluate_ensemble", "--recipe", "together.toml")
    assert missing.exit_code == ExitCode.INPUT
    assert missing.stderr.endswith(
        "evaluate_ensemble needs models/together-char/evaluation, which is not there or not sealed. "
        "Make it first: python -m pipeline run --recipe together.toml\n"
    )


def test_any_evaluations_can_be_averaged(together: TinyStages) -> None:
    good("run", "--recipe", "several.toml")
    given = ("--evaluation", "several-word", "--evaluation", "models/several-char/evaluation")
    together.calls.clear()
    assert "would run" in good("evaluate_ensemble", *given, "--output", "out/both", "--dry-run").stdout
    assert not Path("out").exists()
    done = good("evaluate_ensemble", *given, "--output", "out/both")
    assert together.ran == ["evaluate_ensemble"]
    assert "ensemble    out/both\n" in done.stdout
    assert set(json.loads(Path("out/both/manifest.json").read_text(encoding="utf-8"))["inputs"]) == {
        "member several-word", "member several-char"
    }
    assert "nothing changed (out/both)" in good("evaluate_ensemble", *given, "--output", "out/both").stderr
    changed = ("evaluate_ensemble", *given, "--output", "out/both", "--set", "evaluate_ensemble.bootstrap_samples=300")
    refused = call(*changed)
    assert refused.exit_code == ExitCode.INPUT
    command = re.search(r"what follows: (python .* --force)\.$", refused.stderr.strip())
    assert command
    good(*shlex.split(command[1])[3:])
    assert together.ran == ["evaluate_ensemble"]
    assert not Path("data/both").exists()


def test_members_of_other_settings_are_not_averaged(together: TinyStages) -> None:
    good("run", "--recipe", "together.toml", "--until", "evaluate_classifier")
    refused = call("evaluate_ensemble", "--recipe", "together.toml", "--set", "train_classifier.wd=0.5")
    assert refused.exit_code == ExitCode.INPUT
    assert "evaluate_ensemble would read models/together-word/evaluation, which does not fit" in refused.stderr
    good("evaluate_ensemble", "--recipe", "together.toml")


def test_an_ensemble_replaces_nothing_of_another_kind(together: TinyStages) -> None:
    good("run", "--recipe", "several.toml")
    given = ("evaluate_ensemble", "--evaluation", "several-word", "--evaluation", "several-char", "--output")
    refused = call(*given, "models/several-word/evaluation", "--force")
    assert refused.exit_code == ExitCode.INPUT
    assert "models/several-word/evaluation holds evaluation, not ensemble. Choose another place" in refused.stderr
    assert states("--run", "several-word")[-1] == "sealed"


def test_an_ensemble_is_put_in_no_other_folder(together: TinyStages) -> None:
    given = ("evaluate_ensemble", "--evaluation", "several-word", "--evaluation", "several-char", "--output")
    good("run", "--recipe", "several.toml")
    good(*given, "out/both")
    for output, place in ((".", Path.cwd()), ("out/..", Path.cwd()), ("out", "out")):
        refused = call(*given, output, "--force")
        assert refused.exit_code == ExitCode.INPUT
        assert f"error: {place} is not a sealed artifact: it has no manifest.json." in refused.stderr
    assert "error: --output / is the root of all folders. Name a folder in it:" in call(*given, "/").stderr
    os.chdir("out/both")
    assert "evaluate_ensemble: nothing changed" in good(*given, ".", "--home", "../..").stderr


def test_members_of_other_corpora_are_refused(together: TinyStages) -> None:
    good("run", "--recipe", "mine.toml")
    good("run", "--recipe", "mine.toml", "--run", "limited", "--set", "prepare_corpus.limit_per_split=7")
    refused = call("evaluate_ensemble", "--evaluation", "mine", "--evaluation", "limited", "--output", "both")
    assert refused.exit_code == ExitCode.INPUT
    assert re.search(r"models/limited/evaluation was scored on corpus \w{12}, models/mine/evaluation on \w{12}\. "
                     r"Make the members on one .*: --set inputs\.corpus=data/mine/corpus$", refused.stderr.strip())
    absent = call("evaluate_ensemble", "--evaluation", "mine", "--evaluation", "no", "--output", "both")
    assert absent.exit_code == ExitCode.INPUT
    assert "models/no/evaluation, which is not there or not sealed. Name the folder" in absent.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--recipe", "mine.toml"), "The run mine has no ensemble. Name variants in evaluate_ensemble.members, or "),
        (("--recipe", "several.toml", "--set", "evaluate_ensemble.members=['word', 'chars']"),
         "evaluate_ensemble.members of recipe several.toml: there is no variant 'chars'. Variants: word, char."),
        (("--recipe", "mine.toml", "--set", "evaluate_ensemble.members=['a']"),
         "there is no variant 'a'. The recipe has no variants."),
        (("--recipe", "several.toml", "--set", "evaluate_ensemble.members=['word']"),
         "evaluate_ensemble.members of recipe several.toml are word. Name two variants or more, each once."),
        (("--recipe", "several.toml", "--set", "evaluate_ensemble.members=['word', 'word']"),
         "are word, word. Name two variants or more, each once."),
        (("--evaluation", "a", "--output", "x"), "needs two or more of them and a place."),
        (("--evaluation", "a", "--evaluation", "b"), "Give --evaluation FOLDER --evaluation FOLDER --output FOLDER."),
        (("--output", "x"), "needs two or more of them and a place."),
        (("--evaluation", "a", "--evaluation", "a", "--output", "x"), "--evaluation a is given twice."),
        (("--evaluation", "a", "--evaluation", "b", "--output", "x", "--run", "r"), "--run, --source and --protocol"),
    ],
)
def test_what_cannot_be_an_ensemble_is_a_usage_error(args: tuple[str, ...], message: str) -> None:
    result = call("evaluate_ensemble", *args)
    assert message in result.stderr
    assert result.exit_code == ExitCode.USAGE


# --- recipes ------------------------------------------------------------------------------------


def test_recipes_are_listed_printed_and_explained(tmp_path: Path) -> None:
    listed = good("recipes").stdout
    for name in shipped_recipes():
        assert f"{name} " in listed
        assert load_recipe(name).description in listed
    (tmp_path / "copy.toml").write_text(
        good("recipes", "mine.toml", "--set", "run.seed=7").stdout, encoding="utf-8"
    )
    assert load_recipe("copy.toml") == load_recipe("mine.toml", ["run.seed=7"])
    explained = good("recipes", "--settings").stdout
    assert "[finetune_lm] The AWD_LSTM language model" in explained
    assert "  max_vocab  int >= 10\n      Largest vocabulary" in explained
