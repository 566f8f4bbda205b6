"""C: a run that was stopped and resumed is the run that was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._problem import build
from dowdyboy_conformance._resuming import assert_equal, go, outcome, start
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError


@pytest.mark.clause("C-7", "C-6", "C-11", "B-9", "G-4", "D-5", "S-4")
@pytest.mark.parametrize(
    ("kill_at", "save_steps", "workers"),
    [(4, None, 0), (4, 1, 0), (5, 2, 0), (3, 3, 0), (4, 1, 2), (4, None, 2)],
)
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    harness: Harness, tmp_path: Path, kill_at: int, save_steps: int | None, workers: int
) -> None:
    go(start(harness, tmp_path / "whole", 0, save_steps=save_steps))
    go(start(harness, tmp_path / "killed", workers, save_steps=save_steps), kill_at)
    resumed = start(harness, tmp_path / "killed", workers, save_steps=save_steps, resume="auto")
    go(resumed)
    assert 0 < len(resumed.losses) < 9, "it must have gone on, not begun anew"
    assert_equal(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))


@pytest.mark.clause("C-7", "O-2", "C-14")
def test_resuming_between_windows_of_accumulation(harness: Harness, tmp_path: Path) -> None:
    changed = {"batch_size": 2, "accumulate_steps": 4, "save_steps": 1, "epoch": 2}
    go(start(harness, tmp_path / "whole", **changed))
    go(start(harness, tmp_path / "killed", **changed), kill_at=5)
    resumed = start(harness, tmp_path / "killed", resume="auto", **changed)
    go(resumed)
    assert len(resumed.losses) == 8, "steps 4 to 11: a window that was under way begins anew"
    assert_equal(outcome(tmp_path / "killed", 2), outcome(tmp_path / "whole", 2))


# Of all combinations, each pair of settings once: shuffling, workers, batches in a window, and the step (of 6 in each
# epoch) within which the run is killed: while a window is open, with the one that closes it, in a shorter last window.
COMBINATIONS = [
    (False, 0, 1, 8), (False, 2, 4, 7), (False, 0, 4, 9), (False, 2, 4, 10),
    (True, 2, 1, 8), (True, 0, 4, 7), (True, 2, 4, 9), (True, 0, 4, 10),
]  # fmt: skip


@pytest.mark.clause("C-7", "O-1", "O-2", "D-5")
@pytest.mark.parametrize(("shuffle", "workers", "window", "kill_at"), COMBINATIONS)
def test_every_combination_is_resumed(
    harness: Harness, tmp_path: Path, shuffle: bool, workers: int, window: int, kill_at: int
) -> None:
    changed = {"shuffle": shuffle, "batch_size": 2, "accumulate_steps": window, "save_steps": 1, "epoch": 2}
    go(start(harness, tmp_path / "whole", **changed))
    go(start(harness, tmp_path / "killed", workers, **changed), kill_at)
    resumed = start(harness, tmp_path / "killed", workers, resume="auto", **changed)
    go(resumed)
    closed = 6 + (kill_at - 6) // window * window  # the steps before the window that was under way
    assert len(resumed.losses) == 12 - closed
    assert_equal(outcome(tmp_path / "killed", 2), outcome(tmp_path / "whole", 2))


@pytest.mark.clause("C-7", "C-8")
def test_load_checkpoint_resumes_as_resume_does(harness: Harness, tmp_path: Path) -> None:
    go(start(harness, tmp_path / "whole"))
    go(start(harness, tmp_path / "killed"), kill_at=7)
    run = start(harness, tmp_path / "killed")
    run.trainer.load_checkpoint(tmp_path / "killed" / "checkpoint" / "last_epoch_2")
    go(run)
    assert_equal(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))


@pytest.mark.clause("C-7", "L-5")
def test_a_plateau_scheduler_is_resumed(harness: Harness, tmp_path: Path) -> None:
    values = [1.0, 1.0, 2.0, 0.5, 0.6]
    for name, kills in (("whole", [None]), ("killed", [7, 13, None])):
        for kill_at in kills:
            run = start(harness, tmp_path / name, schedule="plateau", epoch=5, resume="auto")
            run.trainer.set_save_best_calc_func(lambda trainer: values[trainer.epoch - 1])
            go(run, kill_at)
    assert_equal(outcome(tmp_path / "killed", 5), outcome(tmp_path / "whole", 5))


@pytest.mark.clause("C-11")
def test_auto_takes_the_newest_whole_checkpoint(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(start(harness, tmp_path, epoch=12, val_interval=20, save_best=False))
    checkpoints = tmp_path / "checkpoint"
    for name in ("last_epoch_12", "epoch_12", "epoch_11"):
        path = checkpoints / name / "model_0.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    run = start(harness, tmp_path, epoch=11, val_interval=20, save_best=False, resume="auto")
    go(run)
    assert len(run.losses) == 3, "it must go on from epoch 10, not from 9 or 1"
    said = capsys.readouterr().out
    for name in ("last_epoch_12", "epoch_12", "epoch_11"):
        assert f"Checkpoint {str(checkpoints / name)!r} is passed over: " in said


@pytest.mark.clause("C-11")
def test_auto_starts_fresh_where_nothing_is(harness: Harness, tmp_path: Path) -> None:
    run = start(harness, tmp_path, resume="auto", epoch=1)
    go(run)
    assert len(run.losses) == 3


@pytest.mark.clause("C-11")
@pytest.mark.parametrize("kind", [str, Path])
def test_resume_may_be_a_path(harness: Harness, tmp_path: Path, kind: Any) -> None:
    go(start(harness, tmp_path / "first", epoch=2))
    run = start(harness, tmp_path / "second", resume=kind(tmp_path / "first" / "checkpoint" / "epoch_1"))
    go(run)
    assert len(run.losses) == 6
    steps = [json.loads(line)["step"] for line in (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 4, 5, 6, 6, 7, 8, 9], "the other run's curves stay where they are"


@pytest.mark.clause("C-11")
def test_a_run_that_is_over_trains_nothing(harness: Harness, tmp_path: Path) -> None:
    go(start(harness, tmp_path))
    expected = outcome(tmp_path)
    run = start(harness, tmp_path, resume="auto")
    go(run)
    assert run.losses == []
    assert_equal(outcome(tmp_path), expected)


@pytest.mark.clause("C-12")
def test_what_a_killed_save_left_is_cleared_away(harness: Harness, tmp_path: Path) -> None:
    go(start(harness, tmp_path / "whole"))
    go(start(harness, tmp_path / "killed"), kill_at=7)
    checkpoints = tmp_path / "killed" / "checkpoint"
    (checkpoints / ".unfinished-epoch_3").mkdir()
    (checkpoints / ".unfinished-epoch_3" / "model_0.safetensors").write_bytes(b"half")
    (checkpoints / "last_epoch_2").rename(checkpoints / ".replaced-last_epoch_2")
    shutil.rmtree(checkpoints / "epoch_2")
    go(start(harness, tmp_path / "killed", resume="auto"))
    assert_equal(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))


@pytest.mark.clause("C-13", "X-2")
def test_a_disk_that_refuses_does_not_stop_the_training(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint").write_text("in the way")
    run = build(harness, tmp_path, epoch=2, enable_save_checkpoint=True)
    with pytest.raises(CheckpointError) as caught:
        run.fit()
    assert str(caught.value) == (
        f"Training is over, but the last save of epoch_2, last_epoch_2 in {str(tmp_path / 'checkpoint')!r} failed; see "
        "the log. Older checkpoints are whole."
    )
    assert len(run.losses) == 6
    said = capsys.readouterr().out, (tmp_path / "default_run.log").read_text()
    for text in said:
        assert text.count("could not be saved: ") == 4 and "Training goes on without it." in text


@pytest.mark.clause("C-13")
def test_a_later_save_makes_up_for_one_that_failed(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("in the way")
    run = build(harness, tmp_path, epoch=2, enable_save_checkpoint=True)

    def on_epoch_end(trainer: Any, ep: int) -> None:
        if ep == 2:
            trainer.wait_for_checkpoint()  # that of epoch 1, which is to fail
            (tmp_path / "checkpoint").unlink()

    run.fit(on_epoch_end=on_epoch_end)
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == ["epoch_2", "last_epoch_2"]


@pytest.mark.clause("C-14", "B-5")
@pytest.mark.parametrize(("window", "expected"), [(1, [0, 0, 2, 2, 4, 4]), (3, [0, 0, 0, 3, 3, 3])])
def test_save_steps_refreshes_the_last_checkpoint(
    harness: Harness, tmp_path: Path, window: int, expected: list[int]
) -> None:
    run = build(harness, tmp_path, batch_size=2, enable_save_checkpoint=True, save_steps=2, accumulate_steps=window)
    seen: list[int] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        trainer.wait_for_checkpoint()
        path = tmp_path / "checkpoint" / "last_epoch_1" / "checkpoint.json"
        index = json.loads(path.read_text()) if path.exists() else {"train_step": 0, "batch": 0, "epoch": 0}
        assert (index["batch"], index["epoch"]) == (index["train_step"], 0)
        seen.append(index["train_step"])
        return run.train_step(trainer, bat, bat_idx, global_step)

    run.trainer.fit(step)
    assert seen == expected
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == ["epoch_1", "last_epoch_1"]


@pytest.mark.clause("C-6", "R-1")
def test_arrays_that_lie_in_another_order_are_saved_as_they_are_meant(harness: Harness, tmp_path: Path) -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    laid = {
        "in C order": matrix,
        "in Fortran order": np.asfortranarray(matrix),
        "transposed": np.ascontiguousarray(matrix.T).T,
        "every second": np.repeat(matrix, 2, axis=1)[:, ::2],
        "backwards": np.ascontiguousarray(matrix[:, ::-1])[:, ::-1],
    }

    def train(out_dir: Path, stop_at: int | None, **changed: Any) -> dict[str, Any]:
        run = build(harness, out_dir, enable_save_checkpoint=True, save_steps=1, **changed)
        seen: dict[str, Any] = {}

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if global_step == stop_at:
                raise KeyError("stopped")
            trainer.set_records({name: array + global_step for name, array in laid.items()})
            return run.train_step(trainer, bat, bat_idx, global_step)

        def end(trainer: Any, ep: int) -> None:
            seen.update({name: harness.numpy(tensor) for name, tensor in trainer.get_records().items()})

        try:
            run.trainer.fit(step, None, end)
        except KeyError:
            assert stop_at is not None
        return seen

    train(tmp_path, 2)
    resumed = train(tmp_path, None, resume="auto")
    for name in laid:
        np.testing.assert_array_equal(resumed[name], [matrix, matrix + 1, matrix + 2], err_msg=name)
