"""Transfer learning: a trained body under a new two-class head, frozen at first, against the same network from scratch.

    python scripts/companions/transfer_learning.py                     the proof on scikit-learn's digits, offline
    python scripts/companions/transfer_learning.py --source FOLDER     ResNet-18 of ImageNet on two classes of images

The proof trains a body on the digits 0 to 4, each turned four ways, and transfers it to 7 against 9 with 20 labelled
images of each; all others are the test. Both networks are ResNet-18 cut after its second group of layers: 8 x 8 pixels
leave nothing to the deeper ones. From scratch it is trained at three rates.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import companion
import digit_images
from fastai.data.core import DataLoaders
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.torch_core import set_seed
from fastai.vision.augment import Resize
from fastai.vision.core import imagenet_stats
from fastai.vision.data import ImageDataLoaders
from matplotlib.figure import Figure
from resnet import State, body_of, learner, network, train_head

from pipeline.picture import write_picture

N_SEEDS, BODY_EPOCHS, BODY_RATE = 5, 8, 0.1
RATES = {"digits": (0.03, slice(0.03, 0.1)), "images": (1e-3, slice(1e-4, 1e-3))}
"""Of the head, and of all layers from first to last: chosen on the digits 5 and 8, or the note's."""
FROM_SCRATCH = (0.01, 0.03, 0.1)


def compared(loaders: DataLoaders, body: State, kind: str, epochs: int) -> dict[str, float]:
    """Accuracy in percent of the head on the frozen body, of all trained on, and from scratch in as many epochs."""
    head, fine = RATES[kind]
    extra = [digit_images.Shift()] if kind == "digits" else []
    found, frozen_epochs = {}, max(1, 3 * epochs // 10)

    def note(name: str, learn: Learner) -> None:
        found[name] = 100 * float(learn.validate()[1])

    learn = learner(loaders, network(2, body, cut=kind == "digits"), extra)
    with companion.quiet(learn):
        train_head(learn, frozen_epochs, head)
        note("frozen body", learn)
        learn.unfreeze()
        learn.fit_one_cycle(epochs - frozen_epochs, fine)
        note("then unfrozen", learn)
    for rate in FROM_SCRATCH:
        learn = learner(loaders, network(2, None, cut=kind == "digits"), extra)
        with companion.quiet(learn):
            learn.fit_one_cycle(epochs, rate)
            note(f"from scratch at {rate:g}", learn)
    return found


def proof(pair: Sequence[int], epochs: int) -> list[dict[str, float]]:
    """`compared` for each seed, on a body of the digits 0 to 4."""
    set_seed(0)
    learn = learner(digit_images.of_the_body(), network(digit_images.N_KINDS, None, cut=True), [digit_images.Shift()])
    with companion.quiet(learn):
        learn.fit_one_cycle(BODY_EPOCHS, BODY_RATE)
    found = []
    for seed in range(N_SEEDS):
        set_seed(seed)
        found.append(compared(digit_images.of_two(pair), learn.model.state_dict(), "digits", epochs))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare on a folder of images, or give the proof."""
    parser = companion.options(__doc__, "folder of train/ and valid/ with a folder of images for each of two classes")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of ResNet-18; default: torchvision's download")
    parser.add_argument("--pixels", type=int, default=224, help="size of the images of --source; default: %(default)s")
    parser.add_argument("--digits", type=int, nargs=2, default=[7, 9], help="of the proof; default: 7 9")
    parser.add_argument("--epochs", type=int, default=10, help="three tenths of them frozen; default: %(default)s")
    given = parser.parse_args(arguments)
    if given.source:
        with companion.reading(given.source, "a folder of train/ and valid/ with two classes each"):
            of_train, of_valid = (
                sorted(folder.name for folder in (given.source / part).iterdir()) for part in ("train", "valid")
            )
            if len(of_train) != 2 or of_train != of_valid:
                raise ValueError(f"in train/ there are {', '.join(of_train)}, in valid/ {', '.join(of_valid)}")
            loaders = ImageDataLoaders.from_folder(
                given.source, item_tfms=Resize(given.pixels), batch_tfms=Normalize.from_stats(*imagenet_stats), bs=16,
                num_workers=0,
            )
        set_seed(0)
        found = [compared(loaders, body_of(given.weights), "images", given.epochs)]
    else:
        found = proof(given.digits, given.epochs)
    rows = [["accuracy in %", *(f"seed {seed}" for seed in range(len(found))), "mean"]]
    rows += [
        [name, *(f"{one[name]:.1f}" for one in found), f"{mean(one[name] for one in found):.2f}"] for name in found[0]
    ]
    companion.deliver("transfer_learning", given, rows, {"accuracy": found})

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for one in found:
            axes.plot(list(one.values()), list(one), "o", color="tab:blue", alpha=0.5)
        axes.invert_yaxis()
        axes.set_xlabel("accuracy in %, a point for each seed")

    write_picture(given.output / "transfer_learning.png", (7, 3), draw)


if __name__ == "__main__":
    companion.run(main)
