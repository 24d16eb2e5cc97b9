"""Convolution and pooling: the note's ladder of small networks, each at three learning rates.

    python scripts/companions/pooling_cnn.py                    scikit-learn's digits, 8 x 8 pixels
    python scripts/companions/pooling_cnn.py --source MNIST     the four files of MNIST in a folder

Trained as in the note: plain SGD, batches of 64, cross-entropy over a softmax that stands in the network already.
"""

import gzip
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import companion
import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from pipeline.picture import write_picture

RATES = (1.0, 0.3, 0.1)
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
Split = tuple[Tensor, Tensor]
"""Images [N, 1, H, W] from 0 to 1, and labels [N]."""
NETWORKS = {
    "dense": (0, 0, ""), "1 convolution": (0, 4, "91.2"), "1 pooling": (1, 4, "97.8"),
    "2 poolings": (2, 4, "10.3, higher rate; 97.8 at 0.3; 97.6 at 0.1"), "3 poolings": (3, 4, "about 85"),
    "3 poolings, 5 channels": (3, 5, "85 at 0.3"), "3 poolings, 6 channels": (3, 6, "96 at 0.3"),
    "3 poolings, 8 channels": (3, 8, "97 at 0.3"), "3 poolings, 9 channels": (3, 9, "89 at 0.3, 89 at 0.1"),
    "3 poolings, 16 channels": (3, 16, "98 at 0.3"),
}
"""Poolings, channels, and the note's accuracy on MNIST in percent after 10 epochs, or 5 from 5 channels on."""


def read_idx(path: Path) -> Tensor:
    """An IDX file of bytes, gzipped or not: two zeros, 8, the number of sizes, the sizes as big-endian int32, bytes."""
    packed = path.with_name(path.name + ".gz")
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is no IDX file of bytes")
    start = 4 + 4 * content[3]
    return torch.tensor(np.frombuffer(content, np.uint8, offset=start).reshape(np.frombuffer(content[4:start], ">i4")))


def images(source: Path | None) -> tuple[Split, Split]:
    """Training and test images of MNIST in the folder `source`, or of scikit-learn's digits, a fifth for the test."""
    if source is None:
        digits = load_digits()
        x, y = torch.tensor(digits.images / 16).float(), torch.tensor(digits.target)
        x, test_x, y, test_y = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
        return (x[:, None], y), (test_x[:, None], test_y)
    with companion.reading(source, f"the folder of {', '.join(FILES)}, gzipped or not,"):
        x, y, test_x, test_y = (read_idx(source / name) for name in FILES)
        if len(x) != len(y) or len(test_x) != len(test_y):
            raise ValueError("as many labels as images")
    return (x[:, None] / 255, y.long()), (test_x[:, None] / 255, test_y.long())


def network(poolings: int, channels: int, height: int, width: int) -> nn.Sequential:
    """The note's network; its dense layers are narrow from three poolings on. Without channels it is dense."""
    layers: list[nn.Module] = []
    for before in [1, *[channels] * (poolings - 1)] if channels else []:
        layers.append(nn.Conv2d(before, channels, 3, padding="same"))
        if poolings:
            layers.append(nn.MaxPool2d(2))
    flat = (channels or 1) * (height >> poolings) * (width >> poolings)
    hidden = flat if poolings > 2 else 512
    dense = [nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, 10), nn.Softmax(dim=1)]
    return nn.Sequential(*layers, *dense)


def batches(split: Split, sampler: type[RandomSampler] | type[SequentialSampler], bs: int) -> DataLoader[Any]:
    """Whole batches cut out of the tensors at once."""
    return DataLoader(TensorDataset(*split), sampler=BatchSampler(sampler(split[1]), bs, False), batch_size=None)


def accuracy_of(shape: Sequence[int], train: Split, test: Split, *, rate: float, epochs: int, seed: int) -> float:
    """Share of right answers on `test` of the network of these poolings and channels, after training."""
    torch.manual_seed(seed)
    loaders = DataLoaders(batches(train, RandomSampler, 64), batches(test, SequentialSampler, 1000), device="cpu")
    model = network(shape[0], shape[1], *train[0].shape[2:])
    learn = Learner(loaders, model, CrossEntropyLossFlat(), partial(SGD, mom=0.0), metrics=accuracy)
    with companion.quiet(learn):
        learn.fit(epochs, rate, wd=0.0)
        return float(learn.validate()[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every network at every rate."""
    parser = companion.options(__doc__, "folder of MNIST's four files, gzipped or not; default: scikit-learn's digits")
    parser.add_argument("--epochs", type=int, help="default: 10, as in the note; 30 of the digits, which are fewer")
    parser.add_argument("--seed", type=int, default=42, help="default: %(default)s")
    given = parser.parse_args(arguments)
    train, test = images(given.source)
    epochs = given.epochs or (10 if given.source else 30)
    found = {
        name: [100 * accuracy_of(shape, train, test, rate=rate, epochs=epochs, seed=given.seed) for rate in RATES]
        for name, (*shape, _) in NETWORKS.items()
    }
    rows = [["test accuracy in %", *(f"rate {rate:g}" for rate in RATES), "the note, MNIST"]]
    rows += [[name, *(f"{value:.1f}" for value in values), NETWORKS[name][2]] for name, values in found.items()]
    data = {"train": len(train[1]), "test": len(test[1]), "epochs": epochs, "rates": RATES}
    companion.deliver("pooling_cnn", given, rows, data | {"accuracy": found})

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for position, rate in enumerate(RATES):
            axes.plot([values[position] for values in found.values()], list(found), "o", label=f"rate {rate:g}")
        axes.invert_yaxis()
        axes.set_xlabel("test accuracy in %")
        axes.legend()

    write_picture(given.output / "pooling_cnn.png", (8, 4), draw)


if __name__ == "__main__":
    companion.run(main)
