"""Optimizers and schedulers of the user's own, and state under paths that no building order changes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dowdyboy_conformance._inside import inside
from dowdyboy_torch import CheckpointError, Trainer, TrainerConfig


class Signs(torch.optim.Optimizer):
    """Steps by signs, with everything in its state that is plain."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "about": {"kind": ("signs", 1), "bounds": [-math.inf, None]}})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                slots = self.state[parameter]  # made lazily, as many do
                slots["seen"] = {"steps": (1 + slots.get("seen", {"steps": (0,)})["steps"][0],)}
                slots["mean"] = 0.5 * slots.get("mean", torch.zeros_like(parameter)) + parameter.grad
                parameter -= group["lr"] * slots["mean"].sign() * slots["seen"]["steps"][0]


class Zigzag:
    """A scheduler that shares nothing with those of PyTorch but the names of its methods."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.kept: dict[str, Any] = {}  # grows while it steps

    def step(self) -> None:
        turn = self.kept.get("turn", 0) + 1
        self.kept |= {"turn": turn, "history": [*self.kept.get("history", ()), (turn, {3: math.nan})]}
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.5 if turn % 2 else 1.5

    def state_dict(self) -> dict[str, Any]:
        return dict(self.kept)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = dict(state)


class Growing(torch.optim.lr_scheduler.LRScheduler):
    """A scheduler in the manner of PyTorch's, with attributes that come only when it steps."""

    def get_lr(self) -> list[float]:
        self.grown = getattr(self, "grown", 1.0) * 0.75
        return [base * self.grown for base in self.base_lrs]


class Model(torch.nn.Module):
    """Two layers whose parameters can be made in either order, which must not matter."""

    def __init__(self, *, backwards: bool = False) -> None:
        super().__init__()
        made = {"first": (4, 5), "second": (5, 2)}
        layers = {name: torch.nn.Linear(*made[name]) for name in sorted(made, reverse=backwards)}
        self.first, self.second = layers["first"], layers["second"]
        for name, layer in sorted(layers.items()):
            for number, parameter in enumerate(layer.parameters()):
                torch.nn.init.constant_(parameter, 0.1 * len(name) + number)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def fit(out_dir: Path, epoch: int, make: Any, backwards: bool = False, **settings: Any) -> None:
    config = TrainerConfig(out_dir=out_dir, epoch=epoch, cpu=True, log_with="none", disable_tqdm=True, **settings)
    trainer = Trainer(config)
    model = Model(backwards=backwards)
    optimizer, scheduler = make(model, backwards)
    trainer.set_model(model)
    trainer.set_optimizer(optimizer, scheduler)
    trainer.set_train_dataloader(torch.utils.data.DataLoader(torch.arange(24.0).reshape(6, 4), batch_size=2))
    trainer.fit(lambda trainer, bat, *_: model(bat).square().mean())


def files_of(out_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out_dir / "checkpoint" / "last_epoch_4").iterdir()}


def parameters(model: Model, backwards: bool) -> list[Any]:
    return list(model.parameters())[:: -1 if backwards else 1]


def signs(model: Model, backwards: bool) -> tuple[Any, Any]:
    optimizer = Signs(parameters(model, backwards), 0.1)
    return optimizer, Zigzag(optimizer)


def growing(model: Model, backwards: bool) -> tuple[Any, Any]:
    optimizer = torch.optim.Adam(parameters(model, backwards), 0.1)
    return optimizer, Growing(optimizer)


def step_wise(model: Model, backwards: bool) -> tuple[Any, Any]:
    optimizer = torch.optim.Adam(parameters(model, backwards), 0.1)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)


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
            optimizer, _ = signs(model, backwards)
            scheduler = Holding(optimizer)
            scheduler.held = held
            return optimizer, scheduler

        with pytest.raises(CheckpointError) as caught:
            fit(tmp_path, 2, make)
    name = type(held).__name__
    assert str(caught.value).startswith(f"lr_scheduler_0: the value at deep/0/held is a {name} (")
    assert "can't be stored without pickle. Keep state in numbers, strings, lists," in str(caught.value)
    assert "No batch was trained." in str(caught.value)
    assert not (tmp_path / "checkpoint").exists(), "it is refused before anything is written"


def test_a_slot_that_can_not_be_stored_is_refused(tmp_path: Path) -> None:
    def make(model: Model, backwards: bool) -> tuple[Any, Any]:
        optimizer, scheduler = signs(model, backwards)
        optimizer.state[model.first.weight]["hook"] = print
        return optimizer, scheduler

    with pytest.raises(CheckpointError, match=r"optimizer_0: the value at state/0/first\.weight/hook is a builtin"):
        fit(tmp_path, 1, make)


def test_slots_that_go_by_their_number_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_number(self: Any) -> dict[int, str]:
        held = [item for optimizer in self.optimizers for item in self._backend.optimizer_parameters(optimizer)]
        return {id(item): f"0/{number}" for number, item in enumerate(held)}

    monkeypatch.setattr(inside("_run.assembly").Assembly, "parameter_names", by_number)
    with pytest.raises((AssertionError, CheckpointError, RuntimeError)):
        test_a_run_of_ones_own_parts_is_resumed(tmp_path, step_wise, True)
