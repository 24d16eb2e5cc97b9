"""ResNet-18 for transfer: its published weights, a new head, and a learner whose body can be frozen whole."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from fastai.callback import schedule  # it gives learners `fit_one_cycle`
from fastai.callback.core import Callback
from fastai.callback.training import BnFreeze
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from torch import Tensor, nn
from torchvision.models import ResNet, ResNet18_Weights, resnet18

from pipeline.errors import InputError

State = dict[str, Tensor]


def body_of(weights: Path | None) -> State:
    """Weights of ResNet-18 without its head, from a file or else from torchvision's download."""
    try:
        if weights is None:
            state = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True, weights_only=True)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        network(2, state)
    except Exception as error:  # torch raises many kinds
        mend = "Give a file that torchvision's resnet18 loads with --weights."
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"There are no weights: {reason}.", mend) from error
    return state


def network(n_classes: int, body: State | None, *, cut: bool = False) -> ResNet:
    """ResNet-18 with a new head and the body's weights as given.

    `cut` for images of 16 x 16 pixels: the head reads the 2 x 2 places behind the second group of layers.
    """
    model = resnet18()
    if cut:
        model.layer3, model.layer4, model.avgpool = nn.Identity(), nn.Identity(), nn.Identity()
    model.fc = nn.Linear(512, n_classes)
    if body is not None:
        model.load_state_dict(body | {f"fc.{name}": value for name, value in model.fc.state_dict().items()})
    return model


def learner(loaders: DataLoaders, model: ResNet, extra: Sequence[Callback] = ()) -> Learner:
    """SGD on three groups of layers: early body, late body, head. A frozen body keeps its batch statistics, too."""

    def groups(model: ResNet) -> list[list[nn.Parameter]]:
        parts = [[model.conv1, model.bn1, model.layer1], [model.layer2, model.layer3, model.layer4], [model.fc]]
        return [[parameter for layer in part for parameter in layer.parameters()] for part in parts]

    return Learner(
        loaders, model, CrossEntropyLossFlat(), partial(SGD, mom=0.9), splitter=groups, metrics=accuracy, wd=0.0,
        cbs=[BnFreeze(), *extra], train_bn=False, moms=(0.9, 0.9, 0.9),
    )


def train_head(learn: Learner, epochs: int, rate: float) -> None:
    """Train the head alone; its rate falls to a tenth after each third of the steps."""
    learn.freeze()
    learn.fit(epochs, rate, cbs=schedule.ParamScheduler({"lr": lambda done: rate * 0.1 ** int(3 * done)}))
