"""torchvision and timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import timm.data
import timm.optim
import timm.scheduler
import timm.utils
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from . import data
from .cases_torch import classify, loader, perceptron, vectors
from .harness import Parts, case

STATISTICS = "in two processes BatchNorm keeps the statistics of process 0, in one those of all batches"


def images(size: int = 32) -> DataLoader[Any]:
    """A loader of labelled images."""
    return loader(*data.images(size))


def sgd(model: Any) -> torch.optim.Optimizer:
    """What costs little."""
    return torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)


def _of_torchvision(name: str, **settings: Any) -> Callable[[], Parts]:
    def build() -> Parts:
        model = torchvision.models.get_model(name, weights=None, num_classes=3, **settings)
        return Parts(model, sgd(model), images(), classify)

    return build


for _name in ("mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"):
    case(_name, "torch", ("torchvision",))(_of_torchvision(_name))


@case("a small DenseNet, bfloat16", "torch", ("torchvision",), settings={"mixed_precision": "bf16"})
def densenet() -> Parts:
    model = torchvision.models.DenseNet(8, (2, 2, 2), 8, num_classes=3)
    return Parts(model, sgd(model), images(), classify)


class Pictures(Dataset[Any]):
    """Pictures that a transform turns into tensors."""

    def __init__(self, transform: Any) -> None:
        random = np.random.default_rng(0)
        self.pictures = [Image.fromarray(random.integers(0, 255, (24, 24, 3), np.uint8)) for _ in range(data.SAMPLES)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.pictures[index]), index % 3


@case("transforms v2 that draw, read by two workers", "torch", ("torchvision",))
def transforms() -> Parts:
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(32),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.2, 0.2),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    model = torchvision.models.get_model("squeezenet1_1", weights=None, num_classes=3)
    batches = DataLoader(Pictures(transform), data.BATCH, shuffle=True, num_workers=2)
    return Parts(model, sgd(model), batches, classify)


@case("create_transform with RandAugment and random erasing, read by two workers", "torch", ("timm",))
def augmented() -> Parts:
    transform = timm.data.create_transform(
        (3, 32, 32), is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.5, re_mode="pixel"
    )
    model = timm.create_model("test_resnet", num_classes=3)
    batches = DataLoader(Pictures(transform), data.BATCH, shuffle=True, num_workers=2)
    return Parts(model, sgd(model), batches, classify)


def _of_timm(name: str, optimizer: str, size: int = 32, **settings: Any) -> Callable[[], Parts]:
    def build() -> Parts:
        model = timm.create_model(name, num_classes=3, **settings)
        made: Any = timm.optim.create_optimizer_v2(model, opt=optimizer, lr=0.01, weight_decay=0.05)
        return Parts(model, made, images(size), classify)

    return build


case("test_resnet, its Lamb with two groups", "torch", ("timm",))(_of_timm("test_resnet", "lamb"))
case("test_vit with stochastic depth, its AdamP", "torch", ("timm",))(
    _of_timm("test_vit", "adamp", 160, drop_path_rate=0.2)
)
case("test_efficientnet, its NAdamW", "torch", ("timm",))(_of_timm("test_efficientnet", "nadamw"))
case("test_convnext, its Adan", "torch", ("timm",))(_of_timm("test_convnext", "adan"))
case("test_resnet in two processes", "torch", ("timm",), processes=2, not_by_hand=STATISTICS)(
    _of_timm("test_resnet", "momentum")
)


@case("Lookahead around its Lamb", "torch", ("timm",))
def lookahead() -> Parts:
    model = perceptron()
    optimizer: Any = timm.optim.create_optimizer_v2(model, opt="lookahead_lamb", lr=0.01)
    return Parts(model, optimizer, vectors(), classify)


@case(
    "ModelEmaV3 as component",
    "torch",
    ("timm",),
    by_step=True,
    note="freeze it, `ema.requires_grad_(False)`, and update it after `trainer.step`",
)
def averaged() -> Parts:
    model = timm.create_model("test_resnet", num_classes=3)
    average: Any = timm.utils.ModelEmaV3(model, decay=0.9).requires_grad_(False)

    def update() -> None:
        average.update(model)

    return Parts(model, sgd(model), images(), classify, by_step=True, components=[average], after_step=update)


@case("Mixup of a batch", "torch", ("timm",), note="mix in train_step: what it draws comes from the run's own streams")
def mixed() -> Parts:
    mixup = timm.data.Mixup(mixup_alpha=0.5, cutmix_alpha=1.0, num_classes=3)
    model = timm.create_model("test_resnet", num_classes=3)

    def loss(model: Any, bat: Any) -> Any:
        return classify(model, mixup(*bat))

    return Parts(model, sgd(model), images(), loss)


def _scheduled(optimizer: Any) -> Any:
    return timm.scheduler.CosineLRScheduler(optimizer, t_initial=3, warmup_t=1, warmup_lr_init=0.001)


@case(
    "CosineLRScheduler, stepped with the epoch",
    "torch",
    ("timm",),
    note="its `step` wants the epoch: call `scheduler.step(ep)` in on_epoch_end, and don't give it to `set_optimizer`; "
    "the rate is in the optimizer's state",
)
def scheduled() -> Parts:
    model = perceptron()
    optimizer = sgd(model)
    scheduler = _scheduled(optimizer)

    def step(epoch: int) -> None:
        scheduler.step(epoch)

    return Parts(model, optimizer, vectors(), classify, after_epoch=step)


@case(
    "CosineLRScheduler, given to set_optimizer",
    "torch",
    ("timm",),
    refused=True,
    fails=("refused", "its `step` wants the epoch, and that is found out when the first epoch is over"),
)
def scheduled_by_trainer() -> Parts:
    model = perceptron()
    optimizer = sgd(model)
    return Parts(model, optimizer, vectors(), classify, _scheduled(optimizer))
