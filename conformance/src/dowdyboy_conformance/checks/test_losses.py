"""L and P: losses that a run can't go on with, and passes without a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import Run, build, data
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import SetupError

CAN_NOT_GO_ON = ", and the training can't go on from that."


def spoilt(run: Run, *steps: int, factor: float = float("nan")) -> Any:
    """The usual hook with another factor in front of some losses."""

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        loss = run.train_step(trainer, bat, bat_idx, global_step)
        return loss * factor if global_step in steps else loss

    return train_step


def warnings_in(out_dir: Path) -> list[str]:
    lines = (out_dir / "default_run.log").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "The loss is" in line or "In fp16" in line]


@pytest.mark.clause("L-13")
@pytest.mark.parametrize("waits", [False, True], ids=["reads at once", "reads later"])
@pytest.mark.parametrize(("factor", "shown"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_loss_that_is_not_finite_is_told_once(
    harness: Harness, tmp_path: Path, waits: bool, factor: float, shown: str
) -> None:
    run = build(harness, tmp_path, epoch=3, lr=0.0)
    run.trainer._backend.asynchronous = waits
    told: list[int] = []
    run.trainer.fit(spoilt(run, 4, 5, 7, factor=factor), None, lambda *given: told.append(len(warnings_in(tmp_path))))
    [line] = warnings_in(tmp_path)
    assert f"The loss is {shown} in epoch 2, step 4{CAN_NOT_GO_ON}" in line
    assert told == [0, 1, 1]


@pytest.mark.clause("L-13")
def test_no_step_waits_for_the_device(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, samples=40, batch_size=1, epoch=2)
    backend = run.trainer._backend
    backend.asynchronous = True
    read: list[int] = []

    def noted(original: Any) -> Any:
        def reading(value: Any) -> Any:
            read.append(1)
            return original(value)

        return reading

    backend.to_float = noted(backend.to_float)  # type: ignore[method-assign]
    backend.tensor_state = noted(backend.tensor_state)  # type: ignore[method-assign]
    within: list[int] = []

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        within.append(len(read))
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(train_step)
    assert within[:40] == [0] * 40
    assert len(set(within[40:])) == 1, "nothing is read in a step"
    assert len(read) == 2, "but once an epoch"


@pytest.mark.clause("L-13")
@pytest.mark.parametrize("waits", [False, True], ids=["reads at once", "reads later"])
@pytest.mark.parametrize("steps", [None, 1])
def test_a_run_that_stops_for_its_loss_keeps_its_checkpoints(
    harness: Harness, tmp_path: Path, waits: bool, steps: int | None
) -> None:
    settings: dict[str, Any] = {"nonfinite": "stop", "enable_save_checkpoint": True, "save_steps": steps}
    run = build(harness, tmp_path, epoch=3, **settings)
    run.trainer._backend.asynchronous = waits
    with pytest.raises(SetupError) as caught:
        run.trainer.fit(spoilt(run, 4))
    assert str(caught.value) == (
        f"The loss is nan in epoch 2, step 4{CAN_NOT_GO_ON} nonfinite='stop' ends the run here, and nothing was saved "
        "since. Go on from the last checkpoint with another learning rate, clip_grad_norm, or without the data of that "
        "step."
    )
    last = tmp_path / "checkpoint" / ("last_epoch_2" if steps else "last_epoch_1")
    assert read_index(last)["train_step"] == (4 if steps else 3)
    resumed = build(harness, tmp_path, epoch=3, resume="auto", **settings)
    resumed.fit(val=False)
    assert all(np.isfinite(array).all() for array in resumed.parameters().values())


@pytest.mark.clause("L-13")
def test_weights_that_are_not_finite_are_not_saved(harness: Harness, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"nonfinite": "stop", "enable_save_checkpoint": True}
    run = build(harness, tmp_path, epoch=2, auto_optimize=False, **settings)
    weight = dict(harness.native_parameters(run.model))["fc0.weight"]

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        if global_step == 5:  # after which no loss tells
            harness.overwrite(weight, float("inf"))

    with pytest.raises(SetupError, match=r"^The weight 'fc0\.weight' of model_0 is not finite in epoch 2\. nonfinite="):
        run.trainer.fit(step)
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == ["epoch_1", "last_epoch_1"]


@pytest.mark.clause("L-13")
def test_losses_may_be_ignored(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, nonfinite="ignore")
    run.trainer.fit(spoilt(run, 0, 1, 2))
    assert warnings_in(tmp_path) == []


@pytest.mark.clause("L-13", "X-2")
def test_a_pass_without_a_batch_is_an_error(harness: Harness, tmp_path: Path) -> None:
    text = (
        "The {} data has no batch in epoch 1. Give a loader that yields some; with drop_last a batch_size above the "
        "number of samples leaves none."
    )
    for role in ("train", "val"):
        run = build(harness, tmp_path / role)
        few = harness.loader(harness.dataset(*data(3)), 4, drop_last=True)
        getattr(run.trainer, f"set_{role}_dataloader")(few)
        with pytest.raises(SetupError) as caught:
            run.fit()
        assert str(caught.value) == text.format(role)


@pytest.mark.clause("P-5", "L-13")
@pytest.mark.parametrize("mode", ["warn", "stop"])
@pytest.mark.parametrize("window", [1, 2])
def test_steps_that_fp16_skips_are_in_order(harness: Harness, tmp_path: Path, mode: str, window: int) -> None:
    run = _in_fp16(build(harness, tmp_path, samples=24, nonfinite=mode, accumulate_steps=window))
    run.trainer.fit(spoilt(run, 1, factor=float("inf")))
    assert warnings_in(tmp_path) == []
    assert run.trainer._stepper.scaler.scale == 2.0**15


def _in_fp16(run: Run) -> Run:
    """A run whose losses are scaled as in fp16, also where the CPU has none."""
    run.trainer._stepper.scaler.enabled = True
    run.trainer._stepper.scaler.scale = 2.0**16
    return run


@pytest.mark.clause("P-5", "L-13")
def test_fp16_without_a_step_is_told(harness: Harness, tmp_path: Path) -> None:
    told = (
        "In fp16 no step was made in epoch {}: the gradients of all {} steps overflowed, down to a loss scale of {}. "
        "Use mixed_precision='bf16' or 'no', or look at what the loss is."
    )
    run = _in_fp16(build(harness, tmp_path / "short", epoch=2))
    run.trainer.fit(spoilt(run, *range(6)))
    [line] = warnings_in(tmp_path / "short")
    assert told.format(2, 3, 1024) in line, "when it is over, since a scale may take some steps to come down"
    run = _in_fp16(build(harness, tmp_path / "long", epoch=3, samples=18, batch_size=1))
    run.trainer.fit(spoilt(run, *range(54)))
    [line] = warnings_in(tmp_path / "long")
    assert told.format(1, 18, 0.25) in line
    run = _in_fp16(build(harness, tmp_path / "stop", epoch=2, nonfinite="stop"))
    with pytest.raises(SetupError) as caught:
        run.trainer.fit(spoilt(run, *range(6)))
    assert str(caught.value) == told.format(2, 3, 1024) + " nonfinite='stop' ends the run here."
    run = _in_fp16(build(harness, tmp_path / "some", epoch=2))
    run.trainer.fit(spoilt(run, 0, 1, 2, 3, 4))
    assert warnings_in(tmp_path / "some") == []
