"""Every optimizer and scheduler of PaddlePaddle: stopped within an epoch and taken up bitwise, or refused at once."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import paddle
import pytest
from paddle.optimizer import lr

from dowdyboy_core import UnsupportedError
from dowdyboy_paddle import Trainer, TrainerConfig

Base = paddle.optimizer.Optimizer
OPTIMIZERS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (paddle.optimizer, paddle.incubate, paddle.incubate.optimizer)
    for name in module.__all__
    if inspect.isclass(getattr(module, name)) and issubclass(getattr(module, name), Base)
}
OPTIMIZERS.pop("paddle.optimizer.Optimizer")
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "Adam": [{}, {"amsgrad": True}],
    "Momentum": [{}, {"use_nesterov": True}],
    "RMSProp": [{}, {"momentum": 0.5, "centered": True}],
}
"""With which arguments, of those that have state only with some."""
REFUSED = {"LBFGS", "LookAhead", "ModelAverage"}

SCHEDULERS = {name: getattr(lr, name) for name in lr.__all__ if name != "LRScheduler"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "LinearWarmup": {"warmup_steps": 3, "start_lr": 0.01, "end_lr": 0.05},
    "NoamDecay": {"d_model": 4, "warmup_steps": 3},
    "PiecewiseDecay": {"boundaries": [2, 5], "values": [0.1, 0.05, 0.01]},
    "NaturalExpDecay": {"gamma": 0.1},
    "InverseTimeDecay": {"gamma": 0.1},
    "PolynomialDecay": {"decay_steps": 3, "cycle": True},
    "ExponentialDecay": {"gamma": 0.9},
    "MultiStepDecay": {"milestones": [1, 4, 6]},
    "StepDecay": {"step_size": 2},
    "LambdaDecay": {"lr_lambda": lambda step: 0.9**step},
    "MultiplicativeDecay": {"lr_lambda": lambda step: 0.9},
    "ReduceOnPlateau": {"mode": "max", "patience": 0},
    "CosineAnnealingDecay": {"T_max": 8},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2},
    "CyclicLR": {"max_learning_rate": 0.1, "step_size_up": 3, "mode": "exp_range", "exp_gamma": 0.9},
    "OneCycleLR": {"total_steps": 8},
    "LinearLR": {"total_steps": 6},
}


def scheduler(name: str) -> Any:
    rate = {"CyclicLR": "base_learning_rate", "OneCycleLR": "max_learning_rate"}.get(name, "learning_rate")
    given = {} if name == "PiecewiseDecay" else {rate: 0.05}
    if name == "LinearWarmup":
        given[rate] = lr.ExponentialDecay(0.05, 0.9)
    return SCHEDULERS[name](**given, **ARGUMENTS.get(name, {}))


def optimizer(name: str, rate: Any, parameters: Any, arguments: dict[str, Any]) -> Any:
    kind = OPTIMIZERS[name]
    if kind is paddle.incubate.LookAhead:
        return kind(paddle.optimizer.SGD(rate, parameters=parameters))
    if kind is paddle.incubate.ModelAverage:
        return kind(0.15, parameters=parameters)
    return kind(learning_rate=rate, parameters=parameters, **arguments)


class Stop(Exception):
    """Ends a run as a kill would."""


def run(
    out_dir: Path, name: str, arguments: dict[str, Any], schedule: str | None = None, **settings: Any
) -> tuple[list[float], list[float]]:
    """Trains two epochs of four batches, or until ``stop_at``; gives the rate of each step, and the weights."""
    stop_at = settings.pop("stop_at", None)
    paddle.seed(7)
    model = paddle.nn.Linear(3, 2)
    trainer = Trainer(
        TrainerConfig(
            out_dir=out_dir, epoch=2, cpu=True, disable_tqdm=True, log_with="none", save_interval=2, save_steps=6,
            save_best_rec="loss", schedule_by="step", auto_optimize="LBFGS" not in name, **settings,
        )
    )  # fmt: skip
    trainer.set_model(model)
    by_clock = None if schedule is None else scheduler(schedule)
    made = optimizer(name, by_clock or 0.05, model.parameters(), arguments)
    trainer.set_optimizer(made, by_clock)
    trainer.set_train_dataloader([paddle.arange(place, place + 3, dtype="float32") for place in range(4)])
    rates: list[float] = []

    def train(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == stop_at:
            raise Stop
        rates.append(float(made.get_lr()))
        loss = (trainer.get_models()[0](bat) ** 2).mean()
        trainer.set_records({"loss": loss})
        return loss

    try:
        trainer.fit(train)
    except Stop:
        trainer.wait_for_checkpoint()
    return rates, model.weight.flatten().tolist()


def goes_on(out_dir: Path, name: str, arguments: dict[str, Any], schedule: str | None = None) -> None:
    rates, weights = run(out_dir / "whole", name, arguments, schedule)
    cut = run(out_dir / "cut", name, arguments, schedule, stop_at=6)
    assert run(out_dir / "cut", name, arguments, schedule, resume="auto") == (rates[6:], weights)
    assert (len(rates), cut[1] != weights) == (8, True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_bitwise_or_is_refused(name: str, tmp_path: Path) -> None:
    kind = OPTIMIZERS[name].__name__
    if kind in REFUSED:
        with pytest.raises(UnsupportedError, match=f"a {kind}, can't be resumed"):
            run(tmp_path, name, {}, stop_at=0)
        return
    for number, arguments in enumerate(VARIANTS.get(kind, [{}])):
        goes_on(tmp_path / str(number), name, arguments)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_on_bitwise(name: str, tmp_path: Path) -> None:
    goes_on(tmp_path, "paddle.optimizer.Momentum", {}, name)
