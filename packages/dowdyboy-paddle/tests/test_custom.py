"""Optimizers and schedulers of the user's own, and state under paths that no building order changes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import paddle
import pytest

from dowdyboy_conformance._inside import inside
from dowdyboy_paddle import CheckpointError, Trainer, TrainerConfig


class Signs(paddle.optimizer.Optimizer):
    """Steps by signs, with a slot of its own, in the manner of PaddlePaddle's optimizers."""

    def __init__(self, lr: Any, parameters: Any) -> None:
        super().__init__(lr, parameters=parameters)

    def _create_accumulators(self, block: Any, parameters: Any) -> None:
        for parameter in parameters:
            if parameter.name not in self._already_create_accumulator:
                self._add_accumulator("mean", parameter)
                self._already_create_accumulator.add(parameter.name)

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> None:
        parameter, gradient = param_and_grad
        mean = self._get_accumulator("mean", parameter)
        mean.set_value(0.5 * mean + gradient)
        parameter.set_value(parameter - self.get_lr() * mean.sign())


class Zigzag(paddle.optimizer.lr.LRScheduler):
    """A scheduler that keeps what it likes, and more of it while it steps."""

    def __init__(self, learning_rate: float) -> None:
        self.kept: dict[str, Any] = {}
        super().__init__(learning_rate)

    def get_lr(self) -> float:
        turn = self.kept.get("turn", 0) + 1
        self.kept |= {"turn": turn, "history": [*self.kept.get("history", ()), (turn, {3: math.nan})]}
        return float(self.last_lr * (0.5 if turn % 2 else 1.5)) if turn > 1 else self.base_lr

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self.kept}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        super().set_state_dict({name: state[name] for name in ("last_epoch", "last_lr")})
        self.kept = {name: value for name, value in state.items() if name not in ("last_epoch", "last_lr")}


class Growing(paddle.optimizer.lr.LRScheduler):
    """A scheduler in the manner of PaddlePaddle's, which names what is to be kept."""

    grown = 1.0

    def state_keys(self) -> None:
        self.keys = ["last_epoch", "last_lr", "grown"]

    def get_lr(self) -> float:
        self.grown = self.grown * 0.75
        return float(self.base_lr * self.grown)


class Model(paddle.nn.Layer):
    """Two layers whose parameters can be made in either order, which must not matter."""

    def __init__(self, *, backwards: bool = False) -> None:
        super().__init__()
        made = {"first": (4, 5), "second": (5, 2)}
        layers = {name: paddle.nn.Linear(*made[name]) for name in sorted(made, reverse=backwards)}
        self.first, self.second = layers["first"], layers["second"]
        for name, layer in sorted(layers.items()):
            for number, parameter in enumerate(layer.parameters()):
                parameter.set_value(paddle.full_like(parameter, 0.1 * len(name) + number))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.second(paddle.tanh(self.first(x)))


def fit(out_dir: Path, epoch: int, make: Any, backwards: bool = False, **settings: Any) -> None:
    config = TrainerConfig(out_dir=out_dir, epoch=epoch, cpu=True, log_with="none", disable_tqdm=True, **settings)
    trainer = Trainer(config)
    model = Model(backwards=backwards)
    optimizer, scheduler = make(model, backwards)
    trainer.set_model(model)
    trainer.set_optimizer(optimizer, scheduler)
    data = paddle.io.TensorDataset([paddle.arange(24, dtype="float32").reshape([6, 4])])
    trainer.set_train_dataloader(paddle.io.DataLoader(data, batch_size=2))
    trainer.fit(lambda trainer, bat, *_: model(bat[0]).square().mean())


def files_of(out_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out_dir / "checkpoint" / "last_epoch_4").iterdir()}


def parameters(model: Model, backwards: bool) -> list[Any]:
    return list(model.parameters())[:: -1 if backwards else 1]


def signs(model: Model, backwards: bool) -> tuple[Any, Any]:
    scheduler = Zigzag(0.1)
    return Signs(scheduler, parameters(model, backwards)), scheduler


def growing(model: Model, backwards: bool) -> tuple[Any, Any]:
    scheduler = Growing(0.1)
    return paddle.optimizer.Adam(scheduler, parameters=parameters(model, backwards)), scheduler


def step_wise(model: Model, backwards: bool) -> tuple[Any, Any]:
    scheduler = paddle.optimizer.lr.StepDecay(0.1, 2)
    return paddle.optimizer.Adam(scheduler, parameters=parameters(model, backwards)), scheduler


@pytest.mark.parametrize("make", [signs, growing, step_wise])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_run_of_ones_own_parts_is_resumed(tmp_path: Path, make: Any, backwards: bool) -> None:
    """In a process with other models in it, whose parameters may be made in another order than they were."""
    fit(tmp_path / "whole", 4, make)
    fit(tmp_path / "parts", 2, make)
    fit(tmp_path / "parts", 4, make, backwards, resume="auto")
    found, expected = files_of(tmp_path / "parts"), files_of(tmp_path / "whole")
    if backwards:  # the groups name their parameters in the order in which the optimizer has them
        for files in (found, expected):
            tree = json.loads(files.pop("optimizer_0.json"))
            assert sorted(tree["param_groups"][0].pop("params")) == [
                f"0/{layer}.{name}" for layer in ("first", "second") for name in ("bias", "weight")
            ]
            files["tree"] = json.dumps(tree, sort_keys=True).encode()
            del files["checkpoint.json"]  # which has the digests of these
    assert found == expected


def test_a_cell_that_is_run_again_goes_on(tmp_path: Path) -> None:
    """As in a notebook: everything is made anew in the same process, over and over."""
    fit(tmp_path / "whole", 4, step_wise)
    for epoch in range(1, 5):
        fit(tmp_path / "cells", epoch, step_wise, resume="auto")
    assert files_of(tmp_path / "cells") == files_of(tmp_path / "whole")


class Holding(Zigzag):
    """A scheduler with something in its state that can't be stored."""

    held: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"turn": 0, "deep": [{"held": self.held}]}


@pytest.mark.parametrize("kind", ["lambda", "open file", "range", "object"])
def test_state_that_can_not_be_stored_is_refused_when_it_is_saved(tmp_path: Path, kind: str) -> None:
    with (tmp_path / "file").open("w") as file:
        held = {"lambda": lambda: None, "open file": file, "range": range(3), "object": object()}[kind]

        def make(model: Model, backwards: bool) -> tuple[Any, Any]:
            scheduler = Holding(0.1)
            scheduler.held = held
            return Signs(scheduler, parameters(model, backwards)), scheduler

        with pytest.raises(CheckpointError) as caught:
            fit(tmp_path, 2, make)
    name = type(held).__name__
    assert str(caught.value).startswith(f"optimizer_0: the value at LR_Scheduler/deep/0/held is a {name} (")
    assert "can't be stored without pickle. Keep state in numbers, strings, lists," in str(caught.value)
    assert "No batch was trained." in str(caught.value)
    assert not (tmp_path / "checkpoint").exists(), "it is refused before anything is written"


def test_slots_that_go_by_their_number_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_number(self: Any) -> dict[int, str]:
        held = [item for optimizer in self.optimizers for item in self._backend.optimizer_parameters(optimizer)]
        return {id(item): f"0/{number}" for number, item in enumerate(held)}

    monkeypatch.setattr(inside("_run.assembly").Assembly, "parameter_names", by_number)
    with pytest.raises((AssertionError, CheckpointError, RuntimeError)):
        test_a_run_of_ones_own_parts_is_resumed(tmp_path, step_wise, True)
