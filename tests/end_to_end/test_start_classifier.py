"""A classifier that starts from an earlier one: its weights, its head where that fits, and what is told of it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import call, manifest, write_reviews
from safetensors.numpy import load_file

from pipeline import results
from pipeline.artifact import open_artifact
from pipeline.report.chain import chain_to

Start = Callable[..., str]
BARELY = "train_classifier.phases=[{name='a', lr=1e-9}]"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of the runs that start from an earlier classifier."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def start(home: Path, finished: Path) -> Start:
    """Trains and evaluates the classifier of a run, on the ids of the finished one, from that of `earlier`."""

    def start(run: str, *settings: str, earlier: Path = finished / "models/smoke", exit_code: int = 0) -> str:
        given = {
            "corpus": finished / "data/smoke/corpus", "ids": finished / "data/smoke/ids",
            "lm": finished / "models/smoke/lm-fwd", "start_classifier": earlier / "classifier-fwd",
        }
        changes = [f"inputs.{slot}={path}" for slot, path in given.items()]
        changes += ["run.device=cpu", "run.precision=fp32", BARELY, *settings]
        words = [word for change in changes for word in ("--set", change)]
        done = call("run", "--recipe", "smoke", "--run", run, "--home", str(home), *words, exit_code=exit_code)
        return done.stderr + done.stdout

    return start


def weights(models: Path, name: str, model: str = "classifier-fwd") -> dict[str, np.ndarray]:
    return load_file(models / model / f"{name}.safetensors")


def largest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Of what is learned: not of the statistics of batch norm."""
    learned = [name for name in one if "running" not in name and not name.endswith("num_batches_tracked")]
    return max(float(abs(one[name] - other[name]).max()) for name in learned)


def test_it_goes_on_with_encoder_and_head(start: Start, home: Path, finished: Path) -> None:
    said = start("more")
    earlier, models = finished / "models/smoke", home / "models/more"
    assert f"train_classifier: encoder and head from {earlier / 'classifier-fwd'}\n" in said
    for name in ("encoder", "head"):
        assert largest_difference(weights(earlier, name), weights(models, name)) < 1e-4
    assert largest_difference(weights(earlier, "encoder", "lm-fwd"), weights(models, "encoder")) > 1e-2


def test_where_it_comes_from_is_told(start: Start, home: Path, finished: Path) -> None:
    start("more")
    earlier = finished / "models/smoke/classifier-fwd"
    inputs = manifest(home / "models/more/classifier-fwd")["inputs"]
    assert inputs["start_classifier"]["fingerprint"] == manifest(earlier)["fingerprint"]
    (result,) = results.read_results(["more"], home)
    assert result.how == f"from the classifier {os.path.relpath(earlier, home)}"
    assert [stage.role for stage in result.stages] == ["corpus", "ids", "lm", "classifier", "evaluation"]
    chain = chain_to(open_artifact(home / "models/more/evaluation", "evaluation"), home)
    assert chain[0].role == "start_classifier"


def test_a_head_of_other_sizes_is_new(start: Start, home: Path, finished: Path) -> None:
    said = start("wider", "train_classifier.lin_ftrs=[7]")
    assert "train_classifier: encoder alone from " in said
    assert "whose head has other labels or sizes" in said
    earlier, wider = (weights(models, "encoder") for models in (finished / "models/smoke", home / "models/wider"))
    assert largest_difference(earlier, wider) < 1e-4


def test_one_that_test_text_chose_makes_the_next_one_published(start: Start, home: Path) -> None:
    start("chosen", "train_classifier.validate_on=test")
    start("after", earlier=home / "models/chosen")
    metrics = manifest(home / "models/after/classifier-fwd")["metrics"]
    assert (metrics["validated_on"], metrics["protocol"]) == ("test", "published")


def test_random_weights_and_an_earlier_classifier_exclude_each_other(start: Start, home: Path) -> None:
    said = start("neither", "train_classifier.encoder=random", exit_code=2)
    assert "train_classifier.encoder is random, but inputs.start_classifier brings one." in said
    assert not (home / "models/neither").exists()  # nothing was trained first


def test_models_that_have_read_other_texts_are_told(start: Start, home: Path, finished: Path) -> None:
    start("more")
    page = (home / "models/more/evaluation/evaluation.md").read_text(encoding="utf-8")
    assert "have read other texts" not in page
    models = finished / "models/smoke"
    given = {
        "start_lm": models / "lm-fwd", "lm": models / "lm-fwd", "start_classifier": models / "classifier-fwd",
    }
    words = [word for slot, path in given.items() for word in ("--set", f"inputs.{slot}={path}")]
    table = write_reviews(home / "others.csv", n=90)
    call(
        "run", "--recipe", "smoke", "--run", "others", "--home", str(home), "--source", str(table), *words, "--set",
        "prepare_corpus.split_column=split", "--set", "run.device=cpu", "--set", "run.precision=fp32", "--set", BARELY,
    )
    assert manifest(home / "models/others/classifier-fwd")["metrics"]["other_corpora"]
    page = (home / "models/others/evaluation/evaluation.md").read_text(encoding="utf-8")
    assert "It goes on from models that have read other texts, or only those. Whether the test documents are" in page
