"""scikit-learn's digits as a ResNet takes images: five of them to train a body on, two others to transfer it to."""

from collections.abc import Sequence

import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

PIXELS, N_LABELLED, N_KINDS = 16, 20, 20
MEAN, DEVIATION = 0.3, 0.38


class Shift(Callback):
    """Moves each training batch by up to one of the 8 pixels."""

    run_valid = False

    def before_batch(self) -> None:
        """Pad, then cut elsewhere."""
        step = PIXELS // 8
        down, right = torch.randint(0, 2 * step + 1, (2,)).tolist()
        padded = nn.functional.pad(self.xb[0], (step,) * 4, value=-MEAN / DEVIATION)
        self.learn.xb = (padded[:, :, down : down + PIXELS, right : right + PIXELS],)


def digits() -> tuple[Tensor, Tensor]:
    """Images [N, 8, 8] from 0 to 1 and what they show [N]."""
    found = load_digits()
    return torch.tensor(found.images / 16).float(), torch.tensor(found.target)


def loaders(train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor], bs: int) -> DataLoaders:
    """Batches of images [N, 3, PIXELS, PIXELS] and labels."""
    sets = []
    for images, labels in (train, valid):
        x = nn.functional.interpolate((images[:, None] - MEAN) / DEVIATION, size=(PIXELS, PIXELS), mode="bilinear")
        sets.append(TensorDataset(x.expand(-1, 3, -1, -1).contiguous(), labels))
    return DataLoaders(DataLoader(sets[0], bs, shuffle=True), DataLoader(sets[1], 128), device="cpu")


def of_the_body() -> DataLoaders:
    """The digits 0 to 4, each turned four ways: 20 kinds, so that the body has to see where a stroke lies."""
    x, y = digits()
    known = y < 5
    images = torch.cat([x[known].rot90(turn, (1, 2)) for turn in range(4)])
    kinds = torch.cat([4 * y[known] + turn for turn in range(4)])
    return loaders((images, kinds), (images, kinds), 32)


def of_two(pair: Sequence[int]) -> DataLoaders:
    """20 images of each of two digits, drawn with torch's seed, to learn from; all others of the two to test on."""
    x, y = digits()
    indices = [torch.nonzero(y == digit)[:, 0] for digit in pair]
    shuffled = [of_one[torch.randperm(len(of_one))] for of_one in indices]
    labelled, others = (
        torch.cat([of_one[part] for of_one in shuffled]) for part in (slice(N_LABELLED), slice(N_LABELLED, None))
    )
    labels = (y == pair[1]).long()
    return loaders((x[labelled], labels[labelled]), (x[others], labels[others]), 10)
