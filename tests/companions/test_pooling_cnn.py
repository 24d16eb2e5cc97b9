"""The ladder of convolution and pooling: read from MNIST's own format, and pooling keeps a small network learning."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pooling_cnn
import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.errors import DataError, InputError


def write_idx(path: Path, array: np.ndarray) -> None:
    """`array` of bytes in the format of MNIST's files."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Digits as MNIST is published: bytes up to 255 in four gzipped files."""
    digits = load_digits()
    for position, part in ((0, slice(200)), (2, slice(200, 240))):
        write_idx(tmp_path / f"{pooling_cnn.FILES[position]}.gz", digits.images[part] / 16 * 255)
        write_idx(tmp_path / f"{pooling_cnn.FILES[position + 1]}.gz", digits.target[part])
    return tmp_path


def test_every_network_at_every_rate(folder: Path, tmp_path: Path) -> None:
    pooling_cnn.main(["--source", str(folder), "--epochs", "1", "--output", str(tmp_path / "out")])
    figures = json.loads((tmp_path / "out" / "pooling_cnn.json").read_text(encoding="utf-8"))
    assert (figures["train"], figures["test"]) == (200, 40)
    assert list(figures["accuracy"]) == list(pooling_cnn.NETWORKS)
    assert all(len(values) == len(pooling_cnn.RATES) for values in figures["accuracy"].values())
    assert (tmp_path / "out" / "pooling_cnn.png").read_bytes().startswith(b"\x89PNG")


def test_it_learns(folder: Path) -> None:
    train, test = pooling_cnn.images(folder)
    assert train[0].shape == (200, 1, 8, 8)
    assert 0.9 < train[0].max() <= 1
    untrained = pooling_cnn.accuracy_of((1, 8), train, test, rate=0.0, epochs=1, seed=0)
    assert untrained < 0.4
    assert pooling_cnn.accuracy_of((1, 8), train, test, rate=1.0, epochs=40, seed=0) > 0.7


def test_the_networks_are_the_notes() -> None:
    mnist = torch.zeros(2, 1, 28, 28)
    for (poolings, channels), flat, hidden in (
        ((0, 0), 784, 512), ((0, 4), 4 * 784, 512), ((1, 4), 4 * 14 * 14, 512), ((2, 4), 4 * 7 * 7, 512),
        ((3, 4), 4 * 3 * 3, 36), ((3, 16), 16 * 3 * 3, 144),
    ):
        model = pooling_cnn.network(poolings, channels, 28, 28)
        assert model(mnist).shape == (2, 10)
        first = next(layer for layer in model if isinstance(layer, torch.nn.Linear))
        assert (first.in_features, first.out_features) == (flat, hidden)
        assert sum(isinstance(layer, torch.nn.Conv2d) for layer in model) == (max(poolings, 1) if channels else 0)


def test_what_goes_wrong_is_said(folder: Path) -> None:
    (folder / f"{pooling_cnn.FILES[3]}.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte is no IDX file of bytes\. Give the folder of"):
        pooling_cnn.images(folder)
    (folder / f"{pooling_cnn.FILES[3]}.gz").unlink()
    with pytest.raises(InputError, match=r"No such file .*t10k-labels-idx1-ubyte"):
        pooling_cnn.images(folder)
