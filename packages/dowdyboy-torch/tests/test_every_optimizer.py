"""Every optimizer and scheduler of PyTorch: stopped within an epoch and taken up bitwise, or refused at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from dowdyboy_core import UnsupportedError
from dowdyboy_torch import Trainer, TrainerConfig

OPTIMIZERS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "Adam": [{}, {"amsgrad": True}],
    "Adafactor": [{}, {"beta2_decay": -0.5}],
    "LBFGS": [{"max_iter": 2}],
    "RMSprop": [{}, {"momentum": 0.5, "centered": True}],
    "SGD": [{}, {"momentum": 0.5, "nesterov": True}],
}
"""With which arguments, of those that have state only with some."""

SCHEDULERS = {
    name: kind
    for name, kind in vars(lr_scheduler).items()
    if inspect.isclass(kind)
    and issubclass(kind, lr_scheduler.LRScheduler)
    and kind is not lr_scheduler.LRScheduler
    and not name.startswith("_")
} | {"SWALR": SWALR}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "LambdaLR": {"lr_lambda": lambda step: 0.9**step},
    "MultiplicativeLR": {"lr_lambda": lambda step: 0.9},
    "StepLR": {"step_size": 2},
    "PolynomialLR": {"total_iters": 9},
    "MultiStepLR": {"milestones": [1, 4, 6]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 8},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 8},
    "ReduceLROnPlateau": {"mode": "max", "patience": 0},
    "SWALR": {"swa_lr": 0.01, "anneal_epochs": 6},
}


def scheduler(name: str, optimizer: Any) -> Any:
    halves = [lr_scheduler.LinearLR(optimizer, total_iters=3), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    if name == "SequentialLR":
        return lr_scheduler.SequentialLR(optimizer, halves, [3])
    if name == "ChainedScheduler":
        return lr_scheduler.ChainedScheduler(halves, optimizer)
    return SCHEDULERS[name](optimizer, **ARGUMENTS.get(name, {}))


class Stop(Exception):
    """Ends a run as a kill would."""


def run(out_dir: Path, make: Callable[[Any], Any], schedule: str | None = None, **settings: Any) -> list[Any]:
    """Trains two epochs of four batches, or until ``stop_at``; gives what decided each step, and the weights."""
    stop_at = settings.pop("stop_at", None)
    torch.manual_seed(7)
    sparse, by_hand = make.func is torch.optim.SparseAdam, make.func is torch.optim.LBFGS  # type: ignore[attr-defined]
    model = torch.nn.Embedding(6, 2, sparse=True) if sparse else torch.nn.Linear(3, 2, bias=False)
    trainer = Trainer(
        TrainerConfig(
            out_dir=out_dir, epoch=2, cpu=True, disable_tqdm=True, log_with="none", save_interval=2, save_steps=6,
            save_best_rec="loss", schedule_by="step", auto_optimize=not by_hand, **settings,
        )
    )  # fmt: skip
    trainer.set_model(model)
    optimizer = make(model.parameters())
    trainer.set_optimizer(optimizer, None if schedule is None else scheduler(schedule, optimizer))
    trainer.set_train_dataloader([torch.arange(place, place + 3) for place in range(4)])
    seen: list[Any] = []

    def loss_of(bat: Any) -> Any:
        return (trainer.get_models()[0](bat if sparse else bat.float()) ** 2).mean()

    def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == stop_at:
            raise Stop
        seen.append({name: value for name, value in optimizer.param_groups[0].items() if name != "params"})
        if not by_hand:
            loss = loss_of(bat)
            trainer.set_records({"loss": loss})
            return loss

        def closure() -> Any:
            trainer.zero_grad(optimizer)
            loss = loss_of(bat)
            trainer.backward(loss)
            return loss

        trainer.step(optimizer, closure=closure)
        return None

    try:
        trainer.fit(train)
    except Stop:
        trainer.wait_for_checkpoint()
    return [*seen, *(float(value) for value in model.weight.detach().flatten())]


def goes_on(out_dir: Path, make: Callable[[Any], Any], schedule: str | None = None) -> None:
    whole = run(out_dir / "whole", make, schedule)
    cut = run(out_dir / "cut", make, schedule, stop_at=6)
    resumed = run(out_dir / "cut", make, schedule, resume="auto")
    assert resumed == whole[6:]  # two of eight steps, and the weights
    assert cut[-6:] != whole[-6:]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_bitwise(name: str, tmp_path: Path) -> None:
    for number, arguments in enumerate(VARIANTS.get(name, [{}])):
        goes_on(tmp_path / str(number), partial(OPTIMIZERS[name], lr=0.05, **arguments))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_on_bitwise(name: str, tmp_path: Path) -> None:
    goes_on(tmp_path, partial(torch.optim.SGD, lr=0.05, momentum=0.5), name)


class Around(torch.optim.Optimizer):
    """An optimizer around another, whose state it doesn't give."""

    def __init__(self, parameters: Any, lr: float) -> None:
        self.inner = torch.optim.Adam(parameters, lr)
        super().__init__(self.inner.param_groups, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()


def test_an_optimizer_around_another_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"Optimizer 0, a Around, can't be resumed: .*'inner'"):
        run(tmp_path, partial(Around, lr=0.05), stop_at=0)
