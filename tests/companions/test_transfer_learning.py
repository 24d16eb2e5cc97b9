"""Transfer learning: what is frozen stays, weights come from where they should, and the transfer is worth it."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import digit_images
import numpy as np
import pytest
import resnet
import torch
import transfer_learning
from file_server import Server
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.models import ResNet18_Weights, resnet18

from pipeline.errors import DataError, InputError


@pytest.fixture(scope="module")
def weights() -> bytes:
    """A file of ResNet-18 as torchvision publishes them, untrained."""
    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save(resnet18().state_dict(), stream)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of zeros and ones."""
    digits = load_digits()
    for part, positions in (("train", slice(8)), ("valid", slice(8, 12))):
        for digit, name in enumerate(("zero", "one")):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i, image in enumerate(digits.images[digits.target == digit][positions]):
                Image.fromarray((image / 16 * 255).astype(np.uint8)).save(tmp_path / f"images/{part}/{name}/{i}.png")
    return tmp_path / "images"


def test_frozen_weights_do_not_move_until_they_are_unfrozen() -> None:
    torch.manual_seed(0)
    learn = resnet.learner(digit_images.of_two((0, 1)), resnet.network(2, None, cut=True), [digit_images.Shift()])
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}

    def moved() -> set[str]:
        return {name for name, value in learn.model.state_dict().items() if not torch.equal(value, before[name])}

    resnet.train_head(learn, 1, 0.1)
    assert moved() == {"fc.weight", "fc.bias"}  # of batch norm not even the statistics
    learn.unfreeze()
    learn.fit_one_cycle(1, slice(0.03, 0.1))
    assert moved() == set(before)


def test_two_classes_of_images_with_weights_from_a_file(folder: Path, tmp_path: Path, weights: bytes) -> None:
    (tmp_path / "resnet18.pth").write_bytes(weights)
    given = ["--source", str(folder), "--weights", str(tmp_path / "resnet18.pth"), "--pixels", "32", "--epochs", "2"]
    transfer_learning.main([*given, "--output", str(tmp_path / "out")])
    figures = json.loads((tmp_path / "out" / "transfer_learning.json").read_text(encoding="utf-8"))
    (found,) = figures["accuracy"]
    scratch = [f"from scratch at {rate}" for rate in (0.01, 0.03, 0.1)]
    assert list(found) == ["frozen body", "then unfrozen", *scratch]
    assert all(0 <= value <= 100 for value in found.values())
    assert (tmp_path / "out" / "transfer_learning.png").read_bytes().startswith(b"\x89PNG")
    shutil.copytree(folder / "train" / "zero", folder / "train" / "two")
    with pytest.raises(DataError, match=r"in train/ there are one, two, zero, in valid/ one, zero\."):
        transfer_learning.main([*given, "--output", str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"nothing cannot be read: .*Give a folder of train/ and valid/ with two"):
        transfer_learning.main(["--source", str(tmp_path / "nothing"), *given[2:]])


def test_weights_are_downloaded_and_checked(
    weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = ResNet18_Weights.IMAGENET1K_V1.value
    with Server(weights) as server:
        monkeypatch.setattr(published, "url", server.url("resnet18-00000000.pth"))
        with pytest.raises(InputError, match=r"There are no weights: invalid hash value .* with --weights"):
            resnet.body_of(None)
        monkeypatch.setattr(published, "url", server.url(f"resnet18-{hashlib.sha256(weights).hexdigest()[:8]}.pth"))
        body = resnet.body_of(None)
    model = resnet.network(2, body)
    assert torch.equal(model.layer4[1].conv2.weight, body["layer4.1.conv2.weight"])
    assert model.fc.weight.shape == (2, 512)
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(InputError, match=r"There are no weights: .* Give a file that torchvision's resnet18 loads"):
        resnet.body_of(tmp_path / "other.pth")


def test_all_other_images_are_the_test() -> None:
    loaders = digit_images.of_two((7, 9))
    labelled, test = loaders.train.dataset, loaders.valid.dataset
    assert (len(labelled), labelled.tensors[1].sum()) == (40, 20)
    digits = load_digits()
    assert len(labelled) + len(test) == ((digits.target == 7) | (digits.target == 9)).sum()
    assert not any((image == other).all() for image in labelled.tensors[0] for other in test.tensors[0])
    assert len(digit_images.of_the_body().train.dataset) == 4 * (digits.target < 5).sum()


@pytest.mark.slow
@pytest.mark.timeout(1200)  # of a busy machine
def test_the_transfer_beats_the_same_network_from_scratch(tmp_path: Path) -> None:
    transfer_learning.main(["--output", str(tmp_path)])
    found = json.loads((tmp_path / "transfer_learning.json").read_text(encoding="utf-8"))["accuracy"]
    means = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert len(found) == 5
    assert means["then unfrozen"] > max(value for name, value in means.items() if "scratch" in name)
