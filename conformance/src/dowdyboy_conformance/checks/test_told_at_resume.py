"""C and B: what a checkpoint was saved with and the run has otherwise is put right, or told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance.harnesses.harness import Harness


class Stop(Exception):
    """Ends a run as a kill would."""


def _log(out_dir: Path) -> str:
    return (out_dir / "default_run.log").read_text()


def _train(run: Run, stop_at: int | None = None, end: Any = None) -> list[int]:
    """Trains, and gives the steps after which the weights had changed."""
    changed, before = [], run.parameters()

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        nonlocal before
        now = run.parameters()
        if any(not np.array_equal(now[name], before[name]) for name in now):
            changed.append(global_step)
        before = now
        if global_step == stop_at:
            raise Stop
        trainer.set_records({"train_loss": 5.0 - trainer.epoch, "other": 50.0 - trainer.epoch})
        return (
            run.train_step(trainer, bat, bat_idx, global_step)
            if end is None
            else run.loss(trainer.get_models()[0](bat[0]), bat[1])
        )

    try:
        run.trainer.fit(step, None, end)
    except Stop:
        run.trainer.wait_for_checkpoint()
    return changed


@pytest.mark.clause("C-29")
def test_what_is_trained_comes_back_and_is_told_by_name(harness: Harness, tmp_path: Path) -> None:
    def start(folder: str, epochs: int, **changed: Any) -> Run:
        run = build(harness, tmp_path / folder, epoch=epochs, enable_save_checkpoint=True, **changed)
        harness.freeze(run.model)
        for path, parameter in harness.native_parameters(run.model):
            if path.startswith("fc1"):
                run.trainer._backend.set_wants_gradient(parameter, True)
        return run

    def unfreeze(run: Run) -> Any:
        return lambda trainer, ep: harness.unfreeze(run.model) if ep == 1 else None

    whole, cut, resumed = start("whole", 3), start("cut", 2), start("cut", 3, resume="auto")
    for run in (whole, cut):
        run.fit(val=False, on_epoch_end=unfreeze(run))
    resumed.fit(val=False)
    for name, value in whole.parameters().items():
        np.testing.assert_array_equal(resumed.parameters()[name], value, err_msg=name)
    log = _log(tmp_path / "cut")
    assert "'0/fc0.weight'" in log and "'0/fc1.weight'" not in log


@pytest.mark.clause("B-14")
@pytest.mark.parametrize("changed", [{"save_best_rec": "other"}, {"save_best_type": "max"}])
def test_another_value_starts_with_no_best(harness: Harness, tmp_path: Path, changed: dict[str, Any]) -> None:
    settings: dict[str, Any] = {
        "enable_save_checkpoint": True,
        "save_best": True,
        "save_best_rec": "train_loss",
        "resume": "auto",
    }
    ends: list[int] = []
    _train(build(harness, tmp_path, epoch=2, **settings), end=lambda trainer, ep: None)
    assert read_index(tmp_path / "checkpoint" / "best_epoch_2")["best"] == 3
    _train(build(harness, tmp_path, epoch=3, **{**settings, **changed}), end=lambda trainer, ep: ends.append(ep))
    assert [path.name for path in (tmp_path / "checkpoint").glob("best_*")] == ["best_epoch_3"]
    index = read_index(tmp_path / "checkpoint" / "best_epoch_3")
    assert (ends, index["best_rec"]) == ([3], changed.get("save_best_rec", "train_loss"))
    assert (index["to_beat"], index["since_better"]) == (index["best"], 0)
    assert "starts with no best" in _log(tmp_path)


@pytest.mark.clause("C-30", "O-2")
@pytest.mark.parametrize("changed", [{"accumulate_steps": 2}, {"batch_size": 3}, {}])
def test_another_window_is_told_and_begins_afresh(harness: Harness, tmp_path: Path, changed: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"enable_save_checkpoint": True, "save_steps": 1, "batch_size": 2, "resume": "auto"}
    _train(build(harness, tmp_path, **settings), stop_at=3)  # 3 of 6 batches
    steps = _train(build(harness, tmp_path, **{**settings, **changed}))
    if "accumulate_steps" in changed:
        assert steps == [3, 5], "batch 3 sees the weights of the checkpoint, and 3 and 4 are a window"
    log = _log(tmp_path)
    assert ("accumulate_steps was 1 and is 2" in log) == ("accumulate_steps" in changed)
    assert ("batches was 6 and is 4; batch_size was 2 and is 3" in log) == ("batch_size" in changed)
    assert ("within an epoch" in log) == bool(changed)


_CHANGED = "The script was changed since the run in"


@pytest.mark.clause("C-31")
@pytest.mark.parametrize("schedule", [None, "step", "cosine"])
def test_what_the_checkpoint_overrules_is_told_once(harness: Harness, tmp_path: Path, schedule: str | None) -> None:
    def train(epochs: int, **changed: Any) -> str:
        before = _log(tmp_path) if (tmp_path / "default_run.log").exists() else ""
        settings: dict[str, Any] = {"enable_save_checkpoint": True, "resume": "auto", "schedule": schedule, **changed}
        build(harness, tmp_path, epoch=epochs, **settings).fit(val=False)
        return _log(tmp_path)[len(before) :]

    train(2)
    assert _CHANGED not in train(3), "a rate that the schedule moved is no change by the user"
    log = train(4, lr=0.01, seed=7)
    assert log.count(_CHANGED) == 1
    assert len(re.findall(r"^  optimizer 0 .*l\w*r\w* +0\.01 +0\.1( |$)", log, re.MULTILINE)) == 1
    assert re.search(r"^  seed +7 +1024 +the script's for the order of data", log, re.MULTILINE)
    assert "precision" not in log and "weights_only=True" in log
    assert log.count(_CHANGED) == train(5, lr=0.01, seed=7).count(_CHANGED), "once at each resume"
    assert _CHANGED not in train(6, seed=7), "the rate is again as it was when the run began"


@pytest.mark.clause("C-31")
def test_the_length_of_a_schedule_and_the_precision_are_told(harness: Harness, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"enable_save_checkpoint": True, "schedule": "cosine"}
    build(harness, tmp_path, epoch=2, **settings).fit(val=False)
    run = build(harness, tmp_path, epoch=9, **settings, mixed_precision="bf16", resume="auto")
    run.trainer._backend.schedule_length = lambda scheduler: 9  # type: ignore[method-assign]
    run.trainer.load_checkpoint(tmp_path / "checkpoint" / "last_epoch_2")
    log = _log(tmp_path)
    assert re.search(r"^  scheduler 0 steps in all +9 +6 +the rate goes on", log, re.MULTILINE)
    precision = run.trainer._run.precision
    assert bool(re.search(r"^  precision +bf16 +no +the script's", log, re.MULTILINE)) == (precision == "bf16")


@pytest.mark.clause("C-31", "C-8")
def test_weights_alone_overrule_nothing(harness: Harness, tmp_path: Path) -> None:
    build(harness, tmp_path, enable_save_checkpoint=True).fit(val=False)
    other = build(harness, tmp_path / "other", enable_save_checkpoint=True, lr=0.01, seed=7)
    other.trainer.load_checkpoint(tmp_path / "checkpoint" / "last_epoch_1", weights_only=True)
    other.fit(val=False)
    assert _CHANGED not in _log(tmp_path / "other")
    build(harness, tmp_path / "other", epoch=2, lr=0.01, seed=7, resume="auto").fit(val=False)
    assert _CHANGED not in _log(tmp_path / "other"), "a run of its own begins with what its script gives"
