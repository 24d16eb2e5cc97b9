"""What language-model rungs write after a prompt: each reads as it was trained, and repetition is counted."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from pipeline.artifact import open_artifact
from pipeline.cli import app
from pipeline.ladder import continuing
from pipeline.ladder.continuing import WRITTEN_TOKENS, prompt_of, repeated_share, written_by
from pipeline.ladder.fitting import WEIGHTS, weights
from pipeline.ladder.making import SLOT
from pipeline.ladder.recurrent import build
from pipeline.ladder.rungs import RUNGS, LanguageModelSettings
from pipeline.model.weights import load_tensors
from pipeline.text.text_encoder import TextEncoder

READERS = ["LMModel2", "LMModel4"]
"""One reads windows of three words, one goes on with its state."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rungs of a run `t` on sentences of three words."""
    home, rng = tmp_path_factory.mktemp("home"), random.Random(0)
    kinds = (["dogs", "cats", "birds"], ["chase", "like"], ["mice.", "people.", "trees."])
    sentences = [" ".join(rng.choice(words) for words in kinds) for _ in range(600)]
    (home / "text.txt").write_text(
        "\n\n".join(" ".join(sentences[i : i + 6]) for i in range(0, 600, 6)), encoding="utf-8"
    )
    for command in (
        ["run", "--recipe", "smoke", "--run", "t", "--until", "numericalize_corpus", "--set",
         "prepare_corpus.kind=plain-text", "--source", str(home / "text.txt")],
        ["compare", "--on", "t", "--rungs", ",".join(READERS)],
    ):
        result = CliRunner().invoke(app, [*command, "--home", str(home)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return home


def logits_after(name: str, folder: Path, ids: list[int]) -> Tensor:
    """Of the token after `ids`, all read at once by a network made anew."""
    settings = RUNGS[name].settings
    assert isinstance(settings, LanguageModelSettings)
    model = build(name, len(TextEncoder.load(folder).numbers), settings).eval()
    load_tensors(weights(model), folder / WEIGHTS)
    model.reset()
    given = ids[-3:] if name == "LMModel2" else ids
    return F.linear(model(torch.tensor([given]))[0][0, -1], model[1].decoder.weight, model[1].decoder.bias)


@pytest.mark.parametrize("name", READERS)
def test_each_greedy_word_is_the_most_probable_one_after_all_before(home: Path, name: str) -> None:
    artifact = open_artifact(home / "models" / "t" / "ladder" / f"{name}-s42", SLOT)
    prompt = prompt_of(open_artifact(home / "data" / "t" / "ids", "ids"))
    text = TextEncoder.load(artifact.path)
    read = text.encode([prompt])[0][1:].tolist()
    whole = text.encode([written_by(RUNGS[name], artifact, prompt, 1)["greedy"].text])[0][1:].tolist()
    assert len(whole) == len(read) + WRITTEN_TOKENS
    assert whole[: len(read)] == read
    for end in (len(read), len(read) + 1, len(read) + 50):
        assert whole[end] == int(logits_after(name, artifact.path, whole[:end]).argmax())


def test_a_sample_depends_on_its_seed_alone(home: Path) -> None:
    artifact = open_artifact(home / "models" / "t" / "ladder" / "LMModel4-s42", SLOT)
    first, again, other = (written_by(RUNGS["LMModel4"], artifact, "dogs chase", seed) for seed in (1, 1, 2))
    assert first == again
    assert first["greedy"] == other["greedy"]
    assert first["sampled"] != other["sampled"]


def test_no_sample_holds_what_no_one_writes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuing, "SAMPLED", continuing.Sampling(temperature=1000.0))  # all tokens alike
    artifact = open_artifact(home / "models" / "t" / "ladder" / "LMModel4-s42", SLOT)
    text = written_by(RUNGS["LMModel4"], artifact, "dogs chase", 1)["sampled"].text
    assert not {"xxunk", "xxpad", "xxbos", "xxfld"} & set(text.split())


def test_repetition_is_the_share_of_runs_that_came_before() -> None:
    assert repeated_share([1, 2, 3, 4, 5, 6], n=2) == 0
    assert repeated_share([1, 2, 1, 2, 1, 2], n=2) == pytest.approx(3 / 5)  # 12 21, and then 12 21 12
    assert repeated_share([7] * 11, n=8) == pytest.approx(3 / 4)
    assert repeated_share([1, 2], n=8) == 0
