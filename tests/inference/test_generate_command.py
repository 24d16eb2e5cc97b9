"""The `generate` command: text and JSON out, options as `Sampling` has them, errors, and stopping."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from tiny_language_models import seal_language_model
from typer.testing import CliRunner, Result

from pipeline import stopping
from pipeline.cli import app
from pipeline.commands import generate
from pipeline.errors import ExitCode
from pipeline.inference.generate import Sampling


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    seal_language_model(folder / "models" / "mine" / "lm-fwd", bias={"xxbos": -9.0, "xxeos": -9.0})
    seal_language_model(folder / "models" / "both" / "lm-fwd")
    seal_language_model(folder / "models" / "both" / "lm-bwd", direction="bwd")
    return folder


@pytest.fixture(autouse=True)
def no_stop() -> Iterator[None]:
    yield
    stopping.forget()


def call(home: Path, *args: str) -> Result:
    return CliRunner().invoke(app, ["generate", *args, "--home", str(home), "--device", "cpu"])


def test_samples_as_text_and_as_json(home: Path) -> None:
    asked = ("The zebra film", "--model", "mine", "--max-tokens", "12", "--samples", "2", "--temperature", "1")
    text, again, found = call(home, *asked), call(home, *asked), call(home, *asked, "--json")
    assert (text.exit_code, found.exit_code) == (0, 0)
    assert text.stdout == again.stdout
    answer = json.loads(found.stdout)
    assert list(answer) == ["model", "prompt", "sampling", "samples"]
    assert answer["prompt"] == "The zebra film"
    assert answer["sampling"]["max_tokens"] == 12
    first, second = answer["samples"]
    assert text.stdout == f"--- 1\n{first['text']}\n\n--- 2\n{second['text']}\n"
    for sample in (first, second):
        assert sample["text"] == "The zebra film" + sample["written"]
        assert (sample["n_tokens"], sample["ended"]) == (12, "max_tokens")
    assert "models/mine/lm-fwd, fwd, device cpu, precision fp32" in text.stderr
    assert "1 of 4 tokens of the prompt are unknown to it" in text.stderr
    assert "generate: 24 tokens in" in text.stderr
    assert call(home, *asked, "--seed", "7").stdout != text.stdout


def test_the_options_have_the_defaults_of_sampling() -> None:
    defaults = {name: p.default for name, p in inspect.signature(generate.command).parameters.items()}
    for field in fields(Sampling):
        assert defaults[field.name] == field.default, field.name


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--model", "yours"), ExitCode.INPUT, "There is no language model yours, and no run of this name has one in"),
        (("--model", "both"), ExitCode.USAGE, "The run both has two language models. Name one: --model "),
        (("--model", "mine", "--top-p", "2"), ExitCode.USAGE, "top_p cannot be 2.0. It must be above 0 and at most 1"),
        (("--model", "mine", "--samples", "0"), ExitCode.USAGE, "0 samples cannot be written. Ask for 1 or more."),
        (("--model", "mine", "--precision", "int8"), ExitCode.USAGE, "--precision cannot be 'int8'"),
    ],
)
def test_errors_say_what_to_do(home: Path, args: tuple[str, ...], code: ExitCode, message: str) -> None:
    result = call(home, "A film", *args)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""


def test_a_stop_prints_what_was_written(home: Path) -> None:
    result = call(home, "A film", "--model", "mine", "--max-tokens", "100000", "--stop-after", "0.001", "--json")
    assert result.exit_code == ExitCode.STOPPED
    assert "was stopped by the limit of 0.001 minutes. What was written until then is printed." in result.stderr
    (sample,) = json.loads(result.stdout)["samples"]
    assert sample["ended"] == "stopped"
    assert 0 < sample["n_tokens"] < 100_000
