"""torchmetrics, in every place where one keeps a metric."""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics.classification

from . import data
from .cases_hf import adamw
from .cases_torch import loader, perceptron, vectors
from .harness import Parts, case

USES = ("torchmetrics",)


def _measured(metric: Any, *, training: bool, as_component: bool, dropout: float = 0.2) -> Parts:
    """A classifier whose metric is updated in each batch of training or of validation, and computed once an epoch."""
    model = perceptron(dropout=dropout)

    def loss(model: Any, bat: Any) -> Any:
        x, y = bat
        found = model(x)
        if model.training == training:
            metric.update(found.detach(), y)
        return torch.nn.functional.cross_entropy(found, y)

    def compute(epoch: int) -> float:
        value = float(metric.compute())
        metric.reset()
        return value

    val_loader = loader(*data.vectors(seed=1), shuffle=False)
    components = [metric] if as_component else []
    return Parts(
        model, adamw(model), vectors(), loss, val_loader=val_loader, components=components, after_epoch=compute
    )


def accuracy(**settings: Any) -> Any:
    """An accuracy, whose state is four counts."""
    return torchmetrics.classification.MulticlassAccuracy(3, **settings)


@case(
    "a metric of the validation, kept by the hooks",
    "torch",
    USES,
    note="update it in val_step, compute and reset in on_epoch_end",
)
def of_validation() -> Parts:
    return _measured(accuracy(), training=False, as_component=False)


@case(
    "a metric of the validation in two processes",
    "torch",
    USES,
    processes=2,
    note="it brings its own counts together in `compute`",
)
def of_validation_together() -> Parts:
    return _measured(accuracy(), training=False, as_component=False, dropout=0.0)


@case(
    "a metric of the training as component",
    "torch",
    USES,
    fails=("killed", "its state is not in the checkpoint unless it is persistent (next row)"),
)
def of_training() -> Parts:
    return _measured(accuracy(), training=True, as_component=True)


@case(
    "a metric of the training with persistent state",
    "torch",
    USES,
    note="`metric.persistent(True)` before `set_component`",
)
def of_training_persistent() -> Parts:
    metric = accuracy()
    metric.persistent(True)
    return _measured(metric, training=True, as_component=True)
