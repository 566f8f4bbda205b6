"""Schedulers that go by steps give the learning rates of a loop by hand, through a resume within an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle
import pytest
from paddle.optimizer import lr

from dowdyboy_paddle import Trainer, TrainerConfig

EPOCHS, BATCHES = 2, 5
STEPS = EPOCHS * BATCHES

SCHEDULES: dict[str, Callable[[], Any]] = {
    "one cycle": lambda: lr.OneCycleLR(0.1, total_steps=STEPS + 1),
    "cyclic": lambda: lr.CyclicLR(0.01, 0.1, step_size_up=3),
    "cosine after a warm-up": lambda: lr.LinearWarmup(lr.CosineAnnealingDecay(0.1, 7), 3, 0.01, 0.1),
    "warm restarts": lambda: lr.CosineAnnealingWarmRestarts(0.1, 3, 2),
    "Noam": lambda: lr.NoamDecay(64, 4),
    "polynomial": lambda: lr.PolynomialDecay(0.1, STEPS, power=2.0),
    "piecewise": lambda: lr.PiecewiseDecay([3, 6], [0.1, 0.05, 0.01]),
    "of a function": lambda: lr.LambdaDecay(0.1, lambda step: 0.9**step),
}


def make(schedule: Callable[[], Any]) -> tuple[Any, Any, Any]:
    paddle.seed(0)
    model = paddle.nn.Linear(2, 1)
    scheduler = schedule()
    return model, paddle.optimizer.Momentum(scheduler, 0.9, parameters=model.parameters()), scheduler


def batches() -> list[Any]:
    return list(paddle.arange(4.0 * BATCHES).reshape([BATCHES, 2, 2]) / 40)


def by_hand(schedule: Callable[[], Any]) -> list[float]:
    model, optimizer, scheduler = make(schedule)
    rates = []
    for _ in range(EPOCHS):
        for bat in batches():
            optimizer.clear_grad()
            model(bat).square().mean().backward()
            optimizer.step()
            scheduler.step()
            rates.append(optimizer.get_lr())
    return rates


def trained(schedule: Callable[[], Any], out_dir: Path, fail_at: int | None = None) -> list[float]:
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

    trainer.fit(step, on_step_end=lambda trainer, global_step: rates.append(optimizer.get_lr()))
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_are_those_of_a_loop_by_hand(tmp_path: Path, name: str) -> None:
    expected = by_hand(SCHEDULES[name])
    assert len(set(expected)) > 2
    assert trained(SCHEDULES[name], tmp_path / "whole") == expected
    with pytest.raises(InterruptedError):
        trained(SCHEDULES[name], tmp_path / "killed", fail_at=7)
    assert trained(SCHEDULES[name], tmp_path / "killed") == expected[7:]


@pytest.mark.parametrize("made_for", [STEPS, STEPS - 1])
def test_a_scheduler_that_is_made_for_another_number_of_steps_is_told(
    tmp_path: Path, made_for: int, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(lambda: lr.CosineAnnealingDecay(0.1, made_for), tmp_path)
    assert (f"is made for {made_for} steps, and gets {STEPS}" in capsys.readouterr().out) == (made_for != STEPS)
