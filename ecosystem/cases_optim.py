"""Optimizers and averages of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ema_pytorch
import lion_pytorch
import prodigyopt
import pytorch_optimizer
import schedulefree
import torch_ema

from . import data
from .cases_hf import adamw
from .cases_torch import classify, loader, perceptron, vectors
from .harness import Parts, case

SCHEDULE_FREE = (
    "`optimizer.train()` in train_step, `optimizer.eval()` in val_step and on_epoch_end: then the checkpoint of an "
    "epoch holds the averaged weights; one within an epoch (`save_steps`, a signal) holds those that are trained"
)


def _free(make: Any, **settings: Any) -> Callable[[], Parts]:
    def build() -> Parts:
        model = perceptron()
        optimizer = make(model.parameters(), lr=0.05, **settings)

        def end(epoch: int) -> None:
            optimizer.eval()

        return Parts(
            model,
            optimizer,
            vectors(),
            classify,
            val_loader=loader(*data.vectors(seed=1), shuffle=False),
            before_batch=optimizer.train,
            before_val_batch=optimizer.eval,
            after_epoch=end,
        )

    return build


case("AdamWScheduleFree", "torch", ("schedulefree",), note=SCHEDULE_FREE)(
    _free(schedulefree.AdamWScheduleFree, warmup_steps=3)
)
case("SGDScheduleFree", "torch", ("schedulefree",), note=SCHEDULE_FREE)(_free(schedulefree.SGDScheduleFree))


def _with(make: Any, **settings: Any) -> Callable[[], Parts]:
    def build() -> Parts:
        model = perceptron()
        return Parts(model, make(model.parameters(), **settings), vectors(), classify)

    return build


case("Lion", "torch", ("lion-pytorch",))(_with(lion_pytorch.Lion, lr=0.01))
case("Prodigy", "torch", ("prodigyopt",))(_with(prodigyopt.Prodigy))
USES = ("pytorch_optimizer",)
for _name in ("AdaBelief", "Adan", "CAME", "Lamb", "MARS"):
    case(_name, "torch", USES)(_with(getattr(pytorch_optimizer, _name), lr=0.01))
case("ScheduleFreeRAdam", "torch", USES, note=SCHEDULE_FREE)(_free(pytorch_optimizer.ScheduleFreeRAdam))
case(
    "SOAP",
    "torch",
    USES,
    fails=("killed", "it keeps matrices that are laid out by columns, and gets them back by rows: 3e-8 apart"),
)(_with(pytorch_optimizer.SOAP, lr=0.01))
case(
    "Ranger21",
    "torch",
    USES,
    fails=("killed", "what it adds to its `state_dict`, a count and two rates, is not in the checkpoint"),
)(_with(pytorch_optimizer.Ranger21, lr=0.01, num_iterations=12))


@case(
    "Lookahead around AdamW",
    "torch",
    USES,
    fails=("whole", "its `state_dict` has a form of its own, and the first save ends the run with `KeyError: 'state'`"),
)
def lookahead() -> Parts:
    model = perceptron()
    return Parts(model, pytorch_optimizer.Lookahead(adamw(model), k=2), vectors(), classify)


@case("EMA as component", "torch", ("ema-pytorch",), by_step=True, note="`EMA(model, include_online_model=False)`")
def averaged() -> Parts:
    model = perceptron()
    average = ema_pytorch.EMA(model, beta=0.9, update_every=1, update_after_step=1, include_online_model=False)
    parts = Parts(model, adamw(model), vectors(), classify, by_step=True, components=[average])
    parts.after_step = average.update
    return parts


@case(
    "ExponentialMovingAverage as component",
    "torch",
    ("torch-ema",),
    by_step=True,
    fails=("killed", "it is no module, and its state is not in the checkpoint; use AveragedModel of PyTorch's own"),
)
def averaged_outside() -> Parts:
    model = perceptron()
    average: Any = torch_ema.ExponentialMovingAverage(model.parameters(), decay=0.9)

    def value(epoch: int) -> float:
        return float(sum(item.sum() for item in average.shadow_params))

    parts = Parts(model, adamw(model), vectors(), classify, by_step=True, after_epoch=value)
    parts.components, parts.after_step = [average], average.update
    return parts
