"""A classifier that starts from an earlier one: its weights, its head where that fits, and what is told of it."""

from pathlib import Path

import numpy as np
import pytest
from command_line import call, manifest, write_reviews
from safetensors.numpy import load_file

BARELY = "train_classifier.phases=[{name='a', lr=1e-9}]"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a finished run."""
    home = tmp_path_factory.mktemp("home")
    table = write_reviews(home / "reviews.csv", n=160)
    call(
        "run", "--recipe", "smoke", "--source", str(table), "--home", str(home), "--set", "run.device=cpu",
        "--set", "prepare_corpus.split_column=split", "--set", "run.precision=fp32",
        "--set", "tokenize_corpus.workers=1", "--set", "finetune_lm.phases=[{name='a', lr=0.01}]",
        "--set", "train_classifier.phases=[{name='a', lr=0.01}]",
    )
    return home


def start(home: Path, run: str, *settings: str, earlier: str = "smoke", exit_code: int = 0) -> str:
    """Train and evaluate the classifier of another run, on the same ids, from that of `earlier`."""
    places = {
        "corpus": "data/smoke/corpus", "ids": "data/smoke/ids", "lm": "models/smoke/lm-fwd",
        "start_classifier": f"models/{earlier}/classifier-fwd",
    }
    given = [f"inputs.{slot}={home / place}" for slot, place in places.items()]
    changes = [word for setting in (*given, "run.device=cpu", "run.precision=fp32", BARELY, *settings)
               for word in ("--set", setting)]
    done = call("run", "--recipe", "smoke", "--run", run, "--home", str(home), *changes, exit_code=exit_code)
    return done.stderr + done.stdout


def weights(home: Path, run: str, name: str) -> dict[str, np.ndarray]:
    return load_file(home / f"models/{run}/classifier-fwd/{name}.safetensors")


def largest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return max(float(abs(one[name] - other[name]).max()) for name in one if not name.endswith("num_batches_tracked"))


def test_it_goes_on_with_encoder_and_head(home: Path) -> None:
    said = start(home, "more")
    earlier = home / "models/smoke/classifier-fwd"
    assert f"train_classifier: encoder and head from {earlier}\n" in said
    assert largest_difference(weights(home, "smoke", "encoder"), weights(home, "more", "encoder")) < 1e-4
    lm = load_file(home / "models/smoke/lm-fwd/encoder.safetensors")
    assert largest_difference(lm, weights(home, "more", "encoder")) > 1e-2
    learned = {name: found for name, found in weights(home, "smoke", "head").items() if "running" not in name}
    assert largest_difference(learned, weights(home, "more", "head")) < 1e-4
    inputs = manifest(home / "models/more/classifier-fwd")["inputs"]
    assert inputs["start_classifier"]["fingerprint"] == manifest(earlier)["fingerprint"]
    assert "from the classifier models/smoke/classifier-fwd" in call("results", "more", "--home", str(home)).stdout


def test_a_head_of_other_sizes_is_new(home: Path) -> None:
    said = start(home, "wider", "train_classifier.lin_ftrs=[7]")
    assert "train_classifier: encoder alone from " in said
    assert "whose head has other labels or sizes" in said
    assert largest_difference(weights(home, "smoke", "encoder"), weights(home, "wider", "encoder")) < 1e-4


def test_one_that_test_text_chose_makes_the_next_one_published(home: Path) -> None:
    start(home, "chosen", "train_classifier.validate_on=test")
    start(home, "after", earlier="chosen")
    metrics = manifest(home / "models/after/classifier-fwd")["metrics"]
    assert (metrics["validated_on"], metrics["protocol"]) == ("test", "published")


def test_random_weights_and_an_earlier_classifier_exclude_each_other(home: Path) -> None:
    said = start(home, "neither", "train_classifier.encoder=random", exit_code=2)
    assert "train_classifier.encoder is random, but inputs.start_classifier brings one" in said
