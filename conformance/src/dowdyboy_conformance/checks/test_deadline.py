"""L-18: a fit that ends in order before its time is up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._problem import build
from dowdyboy_conformance._resuming import assert_equal, go, outcome, read_index, start
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios.deadline import on_a_clock

LINE = "saved; resume='auto' goes on from here"


@pytest.mark.clause("L-18", "C-7")
@pytest.mark.parametrize(
    ("time", "changed", "ep", "stands"),
    [
        ("1s", {}, 1, (0, 1, None)),
        ("45s", {}, 1, (0, 3, 1)),
        ("1m10s", {}, 2, (1, 1, None)),
        ("1m15s", {"batch_size": 2, "accumulate_steps": 4}, 1, (0, 4, None)),
    ],
    ids=["at once", "in validation", "in training", "in windows"],
)
def test_a_run_is_saved_before_its_time_is_up_and_goes_on(
    harness: Harness,
    tmp_path: Path,
    time: str,
    changed: dict[str, Any],
    ep: int,
    stands: tuple[int, int, int | None],
) -> None:
    go(start(harness, tmp_path / "whole", **changed))
    stopped = start(harness, tmp_path / "parts", stop_after=time, **changed)
    on_a_clock(stopped)
    with pytest.raises(SystemExit) as caught:
        go(stopped)
    assert caught.value.code == 75
    index = read_index(tmp_path / f"parts/checkpoint/last_epoch_{ep}")
    assert (index["epoch"], index["batch"], index["val_batch"]) == stands
    assert f"stopped after {time} in epoch {ep}, {LINE}" in (tmp_path / "parts/default_run.log").read_text()
    resumed = start(harness, tmp_path / "parts", resume="auto", stop_after="3h", **changed)
    on_a_clock(resumed)
    go(resumed)
    assert_equal(outcome(tmp_path / "parts"), outcome(tmp_path / "whole"))


@pytest.mark.clause("L-18")
def test_a_fit_that_is_over_in_time_ends_as_ever(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2, stop_after="2m")
    now = on_a_clock(run)  # six batches of training and six of validation, of ten seconds each

    def end(trainer: Any, ep: int) -> None:
        now[0] += 1000.0 if ep == 2 else 0.0

    for _ in range(2):  # each fit has as much time
        now[0] -= 20.0
        run.trainer.fit(run.train_step, None, end)
        assert run.trainer.epoch == 2
    assert "stopped" not in (tmp_path / "default_run.log").read_text()


@pytest.mark.clause("L-18", "B-8")
def test_without_checkpoints_the_end_saves_none(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2, stop_after="1s")
    on_a_clock(run)
    with pytest.raises(SystemExit):
        run.fit()
    assert not (tmp_path / "checkpoint").exists()
    assert "stopped after 1s in epoch 1, and this point is NOT saved" in (tmp_path / "default_run.log").read_text()


@pytest.mark.clause("L-18", "W-19")
@pytest.mark.parametrize("processes", [2, 3])
def test_the_clock_of_the_first_process_decides_for_all(together: Together, processes: int) -> None:
    for seen in together(processes, "deadline"):
        assert seen == {"code": 75, "stands": [0, 4, None], "goes_on_with": 4}
