"""Schedulers that go by steps give the learning rates of a loop by hand, through a resume within an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as lr

from dowdyboy_torch import Trainer, TrainerConfig

EPOCHS, BATCHES = 2, 5
STEPS = EPOCHS * BATCHES

SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "one cycle": lambda optimizer: lr.OneCycleLR(optimizer, 0.1, total_steps=STEPS + 1),
    "cyclic": lambda optimizer: lr.CyclicLR(optimizer, 0.01, 0.1, step_size_up=3),
    "cosine after a warm-up": lambda optimizer: lr.SequentialLR(
        optimizer, [lr.LinearLR(optimizer, 0.1, total_iters=3), lr.CosineAnnealingLR(optimizer, 7)], [3]
    ),
    "warm restarts": lambda optimizer: lr.CosineAnnealingWarmRestarts(optimizer, 3, 2),
    "Noam": lambda optimizer: lr.LambdaLR(optimizer, lambda step: min((step + 1) ** -0.5, (step + 1) * 4**-1.5)),
    "polynomial": lambda optimizer: lr.PolynomialLR(optimizer, STEPS, 2.0),
    "chained": lambda optimizer: lr.ChainedScheduler(
        [lr.ConstantLR(optimizer, 0.5, total_iters=4), lr.ExponentialLR(optimizer, 0.9)]
    ),
}


def make(schedule: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return model, optimizer, schedule(optimizer)


def batches() -> list[Any]:
    return list(torch.arange(4.0 * BATCHES).reshape(BATCHES, 2, 2) / 40)


def by_hand(schedule: Callable[[Any], Any]) -> list[float]:
    model, optimizer, scheduler = make(schedule)
    rates = []
    for _ in range(EPOCHS):
        for bat in batches():
            optimizer.zero_grad()
            model(bat).square().mean().backward()
            optimizer.step()
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
    return rates


def trained(schedule: Callable[[Any], Any], out_dir: Path, fail_at: int | None = None) -> list[float]:
    config = TrainerConfig(
        out_dir=out_dir, epoch=EPOCHS, cpu=True, schedule_by="step", save_steps=1, resume="auto", disable_tqdm=True
    )
    trainer = Trainer(config)
    model, optimizer, scheduler = make(schedule)
    trainer.set_model(model)
    trainer.set_optimizer(optimizer, scheduler)
    trainer.set_train_dataloader(batches())
    rates = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == fail_at:
            raise InterruptedError
        return trainer.get_models()[0](bat).square().mean()

    trainer.fit(step, on_step_end=lambda trainer, global_step: rates.append(optimizer.param_groups[0]["lr"]))
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_are_those_of_a_loop_by_hand(tmp_path: Path, name: str) -> None:
    expected = by_hand(SCHEDULES[name])
    assert len(set(expected)) > 3
    assert trained(SCHEDULES[name], tmp_path / "whole") == expected
    with pytest.raises(InterruptedError):
        trained(SCHEDULES[name], tmp_path / "killed", fail_at=7)
    assert trained(SCHEDULES[name], tmp_path / "killed") == expected[7:]


@pytest.mark.parametrize("made_for", [STEPS, STEPS - 1])
def test_a_scheduler_that_is_made_for_another_number_of_steps_is_told(
    tmp_path: Path, made_for: int, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(lambda optimizer: lr.CosineAnnealingLR(optimizer, made_for), tmp_path)
    assert (f"is made for {made_for} steps, and gets {STEPS}" in capsys.readouterr().out) == (made_for != STEPS)
