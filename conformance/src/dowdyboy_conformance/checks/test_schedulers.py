"""L: schedulers. O-6: stepping by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import build
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError

NAN, INF = float("nan"), float("inf")


def rates(harness: Harness, out_dir: Path, values: list[float] | None = None, **changed: Any) -> list[float]:
    """The learning rate at each epoch's end; ``values`` are what a plateau scheduler follows."""
    found: list[float] = []
    run = build(harness, out_dir, lr=1.0, **changed)
    if values is not None:
        run.trainer.set_save_best_calc_func(lambda trainer: values[trainer.epoch - 1])
    run.fit(on_epoch_end=lambda trainer, ep: found.append(harness.learning_rate(run.optimizer)))
    return found


@pytest.mark.clause("L-4")
def test_a_clock_scheduler_steps_once_per_epoch(harness: Harness, tmp_path: Path) -> None:
    assert rates(harness, tmp_path, schedule="step", epoch=3) == [0.5, 0.25, 0.125]


@pytest.mark.clause("L-4")
def test_none_among_the_schedulers(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2, lr=1.0)
    first = harness.optimizer("sgd", [run.model], 1.0, schedule="step")
    run.trainer.set_optimizers([first.optimizer, run.optimizer], [first.scheduler, None])
    run.fit()
    assert harness.learning_rate(first.optimizer) == 0.25
    assert harness.learning_rate(run.optimizer) == 1.0


@pytest.mark.clause("L-6")
@pytest.mark.parametrize("schedule", ["step", "plateau"])
def test_auto_schedule_can_be_off(harness: Harness, tmp_path: Path, schedule: str) -> None:
    values = [1.0, 1.0, 1.0]
    assert rates(harness, tmp_path, values, schedule=schedule, epoch=3, auto_schedule=False) == [1.0] * 3


PLATEAUS = [
    ("falls", "min", [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]),
    ("rises", "min", [1.0, 2.0, 3.0], [1.0, 0.5, 0.25]),
    ("max", "max", [1.0, 2.0, 1.5], [1.0, 1.0, 0.5]),
    ("stays", "min", [1.0, 1.0, 0.5], [1.0, 0.5, 0.5]),
    ("nan", "min", [1.0, NAN, 0.5, 0.6], [1.0, 0.5, 0.5, 0.25]),
    ("nan first", "min", [NAN, 1.0, 0.5, 0.6], [1.0, 1.0, 1.0, 0.5]),
    ("inf first", "min", [INF, 1.0, 0.5, 0.6], [1.0, 1.0, 1.0, 0.5]),
    ("nan first, max", "max", [NAN, 1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 0.5]),
    ("-inf, max", "max", [1.0, -INF, 2.0, 3.0], [1.0, 0.5, 0.5, 0.5]),
    ("-inf, min", "min", [1.0, -INF, 0.5, 0.6], [1.0, 0.5, 0.5, 0.25]),
]


@pytest.mark.clause("L-5")
@pytest.mark.parametrize(("mode", "values", "expected"), [case[1:] for case in PLATEAUS], ids=[c[0] for c in PLATEAUS])
def test_a_plateau_scheduler_follows_the_value(
    harness: Harness, tmp_path: Path, mode: str, values: list[float], expected: list[float]
) -> None:
    assert rates(harness, tmp_path, values, schedule="plateau", mode=mode, epoch=len(values)) == expected


@pytest.mark.clause("L-5", "B-1")
def test_a_plateau_scheduler_follows_the_mean_of_the_record(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, lr=1.0, schedule="plateau", epoch=4, val_interval=2, save_best_rec="x")
    found: list[float] = []

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        trainer.set_records({"x": [1, 2, 3, 0, 10, 0][global_step]})  # means 2 and 10/3; first and last values fall

    run.trainer.fit(run.train_step, val_step, lambda trainer, ep: found.append(harness.learning_rate(run.optimizer)))
    assert found == [1.0, 1.0, 1.0, 0.5], "there is no value in the epochs without validation"


@pytest.mark.clause("O-6", "O-5", "L-6")
def test_optimizer_and_scheduler_are_stepped_by_hand(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, lr=1.0, schedule="step", auto_optimize=False, auto_schedule=False)
    moved: list[float] = []
    rate: list[float] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        (optimizer,), (scheduler,) = trainer.get_optimizers()
        before = run.parameters()["fc1.bias"]
        trainer.zero_grad(optimizer)
        trainer.backward(run.loss(run.model(bat[0]), bat[1]))
        if bat_idx == 0:
            trainer.step(optimizer, scheduler)
        elif bat_idx == 1:
            trainer.step(optimizer)
        else:
            trainer.step(lr_scheduler=scheduler)
        moved.append(float(np.abs(run.parameters()["fc1.bias"] - before).max()))
        rate.append(harness.learning_rate(optimizer))

    run.trainer.fit(step)
    assert [value > 0 for value in moved] == [True, True, False]
    assert rate == [0.5, 0.5, 0.25]


@pytest.mark.clause("O-6", "X-2")
def test_stepping_nothing_or_a_plateau_is_refused(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, schedule="plateau")
    with pytest.raises(ConfigError) as caught:
        run.trainer.step()
    assert str(caught.value) == ("step got neither an optimizer nor a scheduler. Give at least one of them.")
    with pytest.raises(ConfigError) as caught:
        run.trainer.step(lr_scheduler=run.scheduler)
    assert str(caught.value) == (
        "step got a scheduler that follows a value. Leave it to auto_schedule=True, or step it yourself with the value."
    )
