"""B: the best, the last, and which checkpoints are kept."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._problem import Run, build
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import ConfigError, SetupError, Trainer

NAN, INF = float("nan"), float("inf")


def follow(harness: Harness, out_dir: Path, values: list[float], **changed: Any) -> Run:
    """A run whose epochs have these values."""
    settings: dict[str, Any] = {"enable_save_checkpoint": True, "save_best": True, "save_interval": 99, **changed}
    run = build(harness, out_dir, samples=4, epoch=len(values), **settings)
    run.trainer.set_save_best_calc_func(lambda trainer: values[trainer.epoch - 1])
    return run.fit(val=False)


def folders(out_dir: Path) -> list[str]:
    return sorted(path.name for path in (out_dir / "checkpoint").iterdir())


CASES = [
    ("falls", "min", [3.0, 2.0, 1.0], 3),
    ("rises", "min", [1.0, 2.0, 3.0], 1),
    ("max", "max", [1.0, 3.0, 2.0], 2),
    ("first of equals", "min", [2.0, 1.0, 1.0], 2),
    ("first of equals, max", "max", [2.0, 2.0, 1.0], 1),
    ("nan first", "min", [NAN, 2.0, 1.5, NAN], 3),
    ("nan last, max", "max", [1.0, 2.0, NAN], 2),
    ("inf, max", "max", [INF, 1.0, 2.0], 3),
    ("-inf, min", "min", [2.0, -INF, 1.0], 3),
    ("negative", "min", [-1.0, -2.0, 0.0], 2),
    ("zero", "min", [0.0, 0.0], 1),
]


@pytest.mark.clause("B-2", "B-3", "B-5")
@pytest.mark.parametrize(("kind", "values", "best"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_best_epoch(harness: Harness, tmp_path: Path, kind: str, values: list[float], best: int) -> None:
    run = follow(harness, tmp_path, values, save_best_type=kind)
    assert folders(tmp_path) == [f"best_epoch_{best}", f"last_epoch_{len(values)}"]
    index = json.loads((tmp_path / "checkpoint" / f"best_epoch_{best}" / "checkpoint.json").read_text())
    assert (index["epoch"], index["best"]) == (best, values[best - 1])
    assert len(run.losses) == len(values)


@pytest.mark.clause("B-3")
@pytest.mark.parametrize("values", [[NAN, NAN], [INF, -INF]])
def test_without_a_finite_value_there_is_no_best(
    harness: Harness, tmp_path: Path, values: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    follow(harness, tmp_path, values)
    assert folders(tmp_path) == ["last_epoch_2"]
    said = capsys.readouterr().out
    for ep, value in enumerate(values, start=1):
        text = f"The value that decides the best is {value} in epoch {ep}, and so it isn't the best."
        assert said.count(text) == 1


@pytest.mark.clause("B-1")
def test_the_value_is_the_mean_of_the_record(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, epoch=2, samples=8, save_best=True, save_best_rec="x", enable_save_checkpoint=True)

    def val_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> None:
        # 2**24 + 1 is no float32: the mean must be taken in more.
        trainer.set_records({"x": [2**24, 2**24 + 2, 1, 2][global_step]})
        trainer.set_records({"x": 2**24 + 1} if global_step < 2 else {"other": 0.0})

    run.trainer.fit(run.train_step, val_step)
    values = {
        name: json.loads((tmp_path / "checkpoint" / name / "checkpoint.json").read_text())["best"]
        for name in ("epoch_1", "epoch_2", "best_epoch_2")
    }
    assert values == {"epoch_1": 2**24 + 1.0, "epoch_2": 1.5, "best_epoch_2": 1.5}


@pytest.mark.clause("B-1", "R-6")
@pytest.mark.parametrize("kind", ["int", "numpy", "tensor"])
def test_a_function_may_compute_the_value(harness: Harness, tmp_path: Path, kind: str) -> None:
    run = build(harness, tmp_path, epoch=2, save_best=True, save_best_type="max", enable_save_checkpoint=True)
    calls: list[list[str]] = []

    def value(trainer: Any) -> Any:
        calls.append(sorted(trainer.get_records()))
        number = harness.numpy(trainer.get_records()["val_loss"]).size * trainer.epoch
        if kind == "int":
            return number
        array = harness.numpy(harness.tensor([float(number)]))
        return array[0] if kind == "numpy" else harness.tensor(array)

    run.trainer.set_save_best_calc_func(value)
    run.fit()
    assert calls == [["train_loss", "val_loss"]] * 2
    index = json.loads((tmp_path / "checkpoint" / "best_epoch_2" / "checkpoint.json").read_text())
    assert index["best"] == 6.0


@pytest.mark.clause("B-1", "B-2")
def test_only_epochs_with_validation_have_a_value(harness: Harness, tmp_path: Path) -> None:
    follow(harness, tmp_path, [1.0, 5.0, 2.0, 4.0], val_interval=2)
    assert folders(tmp_path) == ["best_epoch_4", "last_epoch_4"]


@pytest.mark.clause("B-4", "X-2")
def test_a_missing_record_is_an_error_and_the_epoch_is_kept(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, save_best=True, save_best_rec="acc", enable_save_checkpoint=True)
    with pytest.raises(SetupError) as caught:
        run.fit()
    assert str(caught.value) == (
        "save_best_rec='acc' is not among the records of epoch 1: ['train_loss', 'val_loss']. Record it with "
        "set_records, or name one of these."
    )
    assert folders(tmp_path) == ["epoch_1", "last_epoch_1"]
    again = build(harness, tmp_path, save_best=True, save_best_rec="acc", resume="auto")
    again.fit()
    assert again.losses == [], "the epoch that is kept is over"


@pytest.mark.clause("B-4", "X-2")
@pytest.mark.parametrize("given", [None, "0.5", [0.5]])
def test_a_function_must_give_a_number(harness: Harness, tmp_path: Path, given: Any) -> None:
    run = build(harness, tmp_path, save_best=True)
    run.trainer.set_save_best_calc_func(lambda trainer: given)
    with pytest.raises(ConfigError) as caught:
        run.fit()
    assert str(caught.value) == f"The function of set_save_best_calc_func gave {given!r}. Return a number."


@pytest.mark.clause("B-5", "B-6")
def test_folders_are_told_apart_by_their_whole_names(harness: Harness, tmp_path: Path) -> None:
    mine = ["best_epoch_1_mine", "best_epoch_01", "last_epoch_x", "my_best_epoch_1", "epoch_100"]
    for name in mine:
        (tmp_path / "checkpoint" / name).mkdir(parents=True)
        (tmp_path / "checkpoint" / name / "file").write_text("mine")
    values = [float(20 - epoch) for epoch in range(1, 13)]
    follow(harness, tmp_path, values)
    assert folders(tmp_path) == sorted([*mine, "best_epoch_12", "last_epoch_12"])
    assert all((tmp_path / "checkpoint" / name / "file").read_text() == "mine" for name in mine)


@pytest.mark.clause("B-5")
def test_neither_last_nor_best_need_be_kept(harness: Harness, tmp_path: Path) -> None:
    follow(harness, tmp_path, [1.0, 2.0], save_last=False, save_best=False, save_interval=2)
    assert folders(tmp_path) == ["epoch_2"]


@pytest.mark.clause("B-7")
@pytest.mark.parametrize(("interval", "kept"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), (5, [5]), (6, [])])
def test_epochs_are_kept_at_an_interval(harness: Harness, tmp_path: Path, interval: int, kept: list[int]) -> None:
    follow(harness, tmp_path, [1.0] * 5, save_interval=interval, save_best=False)
    assert folders(tmp_path) == [*[f"epoch_{number}" for number in kept], "last_epoch_5"]


@pytest.mark.clause("B-8")
def test_nothing_is_saved_where_saving_is_off(harness: Harness, tmp_path: Path) -> None:
    follow(harness, tmp_path, [1.0, 0.5], enable_save_checkpoint=False, save_steps=1)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.clause("B-9", "L-8")
def test_a_later_fit_knows_the_best_so_far(harness: Harness, tmp_path: Path) -> None:
    run = follow(harness, tmp_path, [3.0, 1.0])
    run.trainer.set_save_best_calc_func(lambda trainer: 2.0)
    run.fit(val=False)
    assert "best_epoch_2" in folders(tmp_path) and len(run.losses) == 4


@pytest.mark.clause("B-9")
@pytest.mark.parametrize("taken_away", [False, True])
def test_a_resumed_fit_knows_the_best_so_far(harness: Harness, tmp_path: Path, taken_away: bool) -> None:
    follow(harness, tmp_path, [1.0, 3.0])
    if taken_away:  # to another disk, say: then the value is in the resumed checkpoint alone
        shutil.rmtree(tmp_path / "checkpoint" / "best_epoch_1")
    values = [0.0, 0.0, 2.0, 1.5]
    run = build(harness, tmp_path, samples=4, epoch=4, enable_save_checkpoint=True, save_best=True, resume="auto")
    run.trainer.set_save_best_calc_func(lambda trainer: values[trainer.epoch - 1])
    run.fit(val=False)
    assert len(run.losses) == 2
    assert [name for name in folders(tmp_path) if name.startswith("best")] == ["best_epoch_1"] * (not taken_away)


def _given(values: list[float], trainer: Trainer) -> float:
    return values[trainer.epoch - 1]


@pytest.mark.clause("B-10", "B-5")
@pytest.mark.parametrize(("later", "best"), [([2.0, 1.5], 2), ([2.0, 0.5], 3)])
def test_a_resumed_run_keeps_a_better_checkpoint(
    harness: Harness, tmp_path: Path, later: list[float], best: int
) -> None:
    for values, resume in (([3.0, 1.0, 2.0], None), ([3.0, *later], str(tmp_path / "checkpoint" / "epoch_1"))):
        run = build(harness, tmp_path, epoch=3, enable_save_checkpoint=True, save_best=True, resume=resume)
        run.trainer.set_save_best_calc_func(partial(_given, values))
        run.fit()
    assert [path.name for path in (tmp_path / "checkpoint").glob("best_epoch_*")] == [f"best_epoch_{best}"]


@pytest.mark.clause("B-9", "C-7")
def test_a_killed_run_is_not_measured_by_an_earlier_one(harness: Harness, tmp_path: Path) -> None:
    """An earlier one had a better value; one that began anew gets the best that it would have had undisturbed."""
    for name, later in (("whole", [[NAN, 2.0, 3.0]]), ("killed", [[NAN], [NAN, 2.0, 3.0]])):
        follow(harness, tmp_path / name, [1.0, 5.0])
        for values in later:  # a run that is killed after its first epoch has got so far as one that ends there
            resume = "auto" if len(values) > 1 and len(later) > 1 else None
            follow(harness, tmp_path / name, values, resume=resume)
        assert folders(tmp_path / name) == ["best_epoch_2", "last_epoch_3"]
        index = json.loads((tmp_path / name / "checkpoint" / "best_epoch_2" / "checkpoint.json").read_text())
        assert (index["best"], index["run"]) == (2.0, 2)


@pytest.mark.clause("C-11", "B-5")
def test_auto_goes_on_from_the_run_that_went_on_last(harness: Harness, tmp_path: Path) -> None:
    """One that went back to an earlier epoch, and was killed, must not be left for what came after that epoch."""
    follow(harness, tmp_path, [4.0, 3.0, 2.0, 1.0], save_interval=1)
    follow(harness, tmp_path, [4.0, 0.5], save_interval=1, resume=str(tmp_path / "checkpoint" / "epoch_1"))
    assert folders(tmp_path) == ["best_epoch_2", *[f"epoch_{number}" for number in range(1, 5)], "last_epoch_2"]
    run = follow(harness, tmp_path, [4.0, 0.5, 2.0, 1.0], save_interval=1, resume="auto")
    assert len(run.losses) == 2, "epochs 3 and 4"
    assert folders(tmp_path) == ["best_epoch_2", *[f"epoch_{number}" for number in range(1, 5)], "last_epoch_4"]
