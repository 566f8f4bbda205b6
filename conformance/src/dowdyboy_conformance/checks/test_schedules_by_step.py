"""O-11 and O-12: schedulers that step with their optimizers. H-8 and H-9: hooks around steps and epochs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance._resuming import Killed, assert_equal, outcome, start
from dowdyboy_conformance.harnesses.harness import COSINE_STEPS, Harness
from dowdyboy_conformance.scenarios.numbers import scale_the_loss
from dowdyboy_core import CheckpointError, ConfigError, SetupError

# Five batches an epoch: with windows of two, three optimizer steps.
FIVE: dict[str, Any] = {"samples": 20, "epoch": 2, "lr": 1.0}


def rates(run: Run, kill_at: int | None = None) -> list[float]:
    """The learning rate in each training batch."""
    found: list[float] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == kill_at:
            raise Killed
        found.append(run.harness.learning_rate(run.optimizer))
        trainer.log({"rate": found[-1]}, global_step)
        return run.train_step(trainer, bat, bat_idx, global_step)

    try:
        run.trainer.fit(step, run.val_step)
    except Killed:
        assert kill_at is not None
    return found


@pytest.mark.clause("O-11")
def test_schedulers_step_with_their_optimizers(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, schedule="step", schedule_by="step", accumulate_steps=2, **FIVE)
    windows = [0, 0, 1, 1, 2, 3, 3, 4, 4, 5]  # the last of an epoch has one batch
    assert rates(run) == [0.5**number for number in windows]
    assert harness.learning_rate(run.optimizer) == 0.5**6, "and no more at the end of an epoch"


@pytest.mark.clause("O-11", "C-7")
@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_a_schedule_goes_on_within_an_epoch(harness: Harness, tmp_path: Path, schedule: str) -> None:
    settings: dict[str, Any] = {"schedule": schedule, "schedule_by": "step", "save_steps": 1, "epoch": 2, "lr": 0.5}
    whole = rates(start(harness, tmp_path / "whole", **settings))
    if schedule == "cosine":
        expected = [0.25 * (1 + math.cos(math.pi * number / COSINE_STEPS)) for number in range(6)]
        np.testing.assert_allclose(whole, expected, rtol=1e-9)
    first = rates(start(harness, tmp_path / "parts", **settings), kill_at=4)
    second = rates(start(harness, tmp_path / "parts", resume="auto", **settings))
    assert first + second == whole
    assert_equal(outcome(tmp_path / "parts", 2), outcome(tmp_path / "whole", 2))


@pytest.mark.clause("O-11", "X-2")
def test_a_schedule_goes_on_as_it_was(harness: Harness, tmp_path: Path) -> None:
    saved: dict[str, Any] = {"schedule": "step", "enable_save_checkpoint": True}
    rates(build(harness, tmp_path, schedule_by="step", **saved))
    folder = tmp_path / "checkpoint/last_epoch_1"
    run = build(harness, tmp_path / "other", epoch=2, lr=1.0, **saved)
    before = run.parameters()
    with pytest.raises(CheckpointError) as caught:
        run.trainer.load_checkpoint(folder)
    assert str(caught.value) == (
        f"In {str(folder)!r} the scheduler of optimizer 0 goes by schedule_by='step', and here by 'epoch'. Set what it "
        "was saved with, or load the weights alone with weights_only=True."
    )
    assert all((array == before[name]).all() for name, array in run.parameters().items()), "nothing was loaded"
    build(harness, tmp_path, epoch=2, schedule_by=["step"], **saved).trainer.load_checkpoint(folder)


@pytest.mark.clause("O-11", "L-5")
def test_each_optimizer_has_a_schedule_of_its_own_kind(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, schedule_by=["step", "epoch", "step"], save_best=True, **FIVE)
    made = [harness.optimizer("sgd", [run.model], 1.0, schedule=name) for name in ("step", "step", "plateau")]
    run.trainer.set_optimizers([item.optimizer for item in made], [item.scheduler for item in made])
    run.trainer.set_save_best_calc_func(lambda trainer: 1.0)
    run.fit()
    assert [harness.learning_rate(item.optimizer) for item in made] == [0.5**10, 0.5**2, 0.5]


@pytest.mark.clause("O-11", "O-8", "P-1")
def test_a_skipped_step_is_none_of_the_schedule(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, schedule="step", schedule_by="step", lr=2.0**-10)
    scale_the_loss(run.trainer)  # in float32, so that it is seen where the device has no fp16, too
    found: list[float] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        found.append(harness.learning_rate(run.optimizer))
        return run.train_step(trainer, bat, bat_idx, global_step) * (float("inf") if bat_idx == 1 else 1.0)

    run.trainer.fit(step)
    assert found == [2.0**-10, 2.0**-11, 2.0**-11]


@pytest.mark.clause("O-11", "O-6", "X-2")
def test_steps_by_hand_take_the_schedule_along(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, schedule="step", schedule_by="step", auto_optimize=False, lr=1.0)
    found: list[float] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        for _ in range(bat_idx):
            trainer.zero_grad(run.optimizer)
            trainer.backward(run.loss(run.model(bat[0]), bat[1]))
            trainer.step(run.optimizer)
            found.append(harness.learning_rate(run.optimizer))
        with pytest.raises(ConfigError) as caught:
            trainer.step(run.optimizer, run.scheduler)
        assert str(caught.value) == (
            "step got a scheduler that schedule_by='step' steps after each step of its optimizer. Leave it out, or set "
            "auto_schedule=False."
        )

    run.trainer.fit(step)
    assert found == [0.5, 0.25, 0.125]


@pytest.mark.clause("O-12")
def test_how_many_steps_a_schedule_gets(harness: Harness, tmp_path: Path) -> None:
    def steps(**settings: Any) -> int | None:
        return build(harness, tmp_path, **{**FIVE, **settings}).trainer.schedule_steps

    assert steps() == 2
    assert steps(schedule_by="step") == 10
    assert steps(schedule_by="step", accumulate_steps=2) == 6
    assert steps(schedule_by=("epoch",)) == 2
    assert steps(auto_schedule=False) is None
    assert steps(schedule_by="step", auto_optimize=False) is None
    run = build(harness, tmp_path, schedule_by="step", **FIVE)
    run.trainer.set_train_dataloader(harness.loader(harness.stream(lambda: iter([])), 4))
    assert run.trainer.schedule_steps is None


@pytest.mark.clause("O-12")
@pytest.mark.parametrize(
    ("by", "told"),
    [
        ("step", []),
        (
            "epoch",
            [
                f"The scheduler of optimizer 0 (NAME) is made for {COSINE_STEPS} steps, and gets 2 in the whole fit, "
                "one an epoch. Make it for trainer.schedule_steps, or set schedule_by, unless you mean it so."
            ],
        ),
    ],
)
def test_a_schedule_of_another_length_is_told(harness: Harness, tmp_path: Path, by: str, told: list[str]) -> None:
    run = build(harness, tmp_path, schedule="cosine", schedule_by=by, epoch=2)
    rates(run)
    log = (tmp_path / "default_run.log").read_text()
    name = type(run.scheduler).__name__
    lines = [line.split("[WARNING] ", 1)[1] for line in log.splitlines() if "[WARNING]" in line]
    assert lines == [line.replace("NAME", name) for line in told], "once, with both numbers"


@pytest.mark.clause("O-11", "F-3", "X-2")
def test_what_schedule_by_can_not_be(harness: Harness, tmp_path: Path) -> None:
    for value, text in [
        ("batch", "schedule_by='batch' is not one of 'epoch', 'step'."),
        ([], "schedule_by=[] is empty. Give one of 'epoch', 'step' for each optimizer."),
        (["step", 1], "schedule_by=['step', 1] has 1 at place 1, which is not one of 'epoch', 'step'."),
    ]:
        with pytest.raises(ConfigError) as caught:
            build(harness, tmp_path, schedule_by=value)
        assert str(caught.value) == text
    with pytest.raises(ConfigError) as caught:
        build(harness, tmp_path, schedule_by="step", auto_schedule=False)
    assert str(caught.value) == (
        "schedule_by='step' needs auto_schedule=True. With auto_schedule=False call trainer.step(optimizer, "
        "lr_scheduler) as often as you like."
    )
    with pytest.raises(SetupError) as refused:
        build(harness, tmp_path, schedule_by=["step", "step"]).fit()
    assert str(refused.value) == (
        "schedule_by=('step', 'step') has 2 entries, and there are 1 optimizers. Give one for each, or one word "
        "for all."
    )


class Hooks:
    """Notes when hooks come."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.events: list[Any] = []

    def fit(self, kill_at: int | None = None) -> list[Any]:
        """Fits with all hooks."""
        run, note = self.run, self.events.append

        def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if global_step == kill_at:
                raise Killed
            note(("train", global_step))
            return run.train_step(trainer, bat, bat_idx, global_step)

        def on_step_end(trainer: Any, global_step: int) -> None:
            assert trainer.global_step == global_step + 1, "the batch is done"
            trainer.set_records({"drawn": run.harness.draw()})
            trainer.log({"rate": run.harness.learning_rate(run.optimizer)}, global_step)
            note(("step", global_step, run.harness.learning_rate(run.optimizer), run.harness.is_training(run.model)))

        def on_epoch_begin(trainer: Any, ep: int) -> None:
            assert trainer.epoch == ep
            assert not trainer.get_records()
            trainer.set_records({"begun": ep, "drawn": run.harness.draw()})
            trainer.log({"begun": run.harness.draw()}, trainer.global_step)
            if not trainer.resuming:
                note(("begin", ep, trainer.global_step))

        def on_epoch_end(trainer: Any, ep: int) -> None:
            sums = {name: item.sum() for name, item in sorted(trainer.get_records().items())}
            trainer.log({"end": ep, **sums}, trainer.global_step)
            note(("end", ep))

        try:
            run.trainer.fit(
                train_step, run.val_step, on_epoch_end, on_epoch_begin=on_epoch_begin, on_step_end=on_step_end
            )
        except Killed:
            assert kill_at is not None
        return self.events


@pytest.mark.clause("H-8", "H-9", "L-1")
def test_the_hooks_around_epochs_and_steps(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, schedule="step", schedule_by="step", accumulate_steps=2, lr=1.0)
    assert Hooks(run).fit() == [
        ("begin", 1, 0),
        ("train", 0),
        ("train", 1),
        ("step", 1, 0.5, True),
        ("train", 2),
        ("step", 2, 0.25, True),
        ("end", 1),
    ]
    run = build(harness, tmp_path, auto_optimize=False)
    assert [event[1] for event in Hooks(run).fit() if event[0] == "step"] == [0, 1, 2]


@pytest.mark.clause("H-8", "H-9", "C-7")
@pytest.mark.parametrize(("kill_at", "again"), [(3, True), (4, False)])
def test_hooks_in_a_resumed_run(harness: Harness, tmp_path: Path, kill_at: int, again: bool) -> None:
    settings: dict[str, Any] = {"schedule": "step", "schedule_by": "step", "save_steps": 1, "epoch": 2}
    whole = Hooks(start(harness, tmp_path / "whole", **settings)).fit()
    Hooks(start(harness, tmp_path / "parts", **settings)).fit(kill_at)
    resumed = Hooks(start(harness, tmp_path / "parts", resume="auto", **settings)).fit()
    assert resumed == whole[whole.index(("begin", 2, 3)) if again else whole.index(("train", kill_at)) :]
    assert_equal(outcome(tmp_path / "parts", 2), outcome(tmp_path / "whole", 2))


@pytest.mark.clause("H-8", "H-9", "H-3")
@pytest.mark.parametrize("name", ["on_epoch_begin", "on_step_end"])
def test_hooks_that_can_not_be_called(harness: Harness, tmp_path: Path, name: str) -> None:
    run = build(harness, tmp_path)
    hooks: dict[str, Any] = {name: lambda trainer: None}
    with pytest.raises(ConfigError, match=name):
        run.trainer.fit(run.train_step, **hooks)
    assert run.losses == []
