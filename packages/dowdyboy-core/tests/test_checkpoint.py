"""Which checkpoints there are, which to keep, and which to go on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import CheckpointError
from dowdyboy_core._checkpoint import CheckpointFolder, Snapshot, numbered
from dowdyboy_core._files import Content


def snapshot(epoch: int, batch: int = 0, run: int = 1, **changed: Any) -> Content:
    counts = {"world_size": 1, "metrics_bytes": 0, "train_step": 3 * epoch, "val_step": 0, "val_batch": None}
    texts = dict.fromkeys(("dowdyboy", "backend", "backend_version", "python", "name", "precision"), "x")
    place = {"run": run, "epoch": epoch, "batch": batch, "best": None, "best_epoch": None, "best_type": "min"}
    index = {**counts, **texts, **place, **changed}
    return Snapshot(index, {}, {"rng": [epoch], "records": {}, "scaler": {}}).content()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path, said: list[str]) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoint", said.append)


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_one_last_one_best_and_every_epoch(folder: CheckpointFolder) -> None:
    for epoch in (1, 2, 12):
        for kind in ("epoch", "last_epoch", "best_epoch"):
            assert folder.save(kind, epoch, snapshot(epoch))
    assert names(folder) == ["best_epoch_12", "epoch_1", "epoch_12", "epoch_2", "last_epoch_12"]


def test_foreign_folders_stay(folder: CheckpointFolder) -> None:
    foreign = ["best_epoch_1_mine", "best_epoch_x", "my_best_epoch_1", "last_epoch_01"]
    for name in foreign:
        (folder.path / name).mkdir(parents=True)
    folder.save("best_epoch", 1, snapshot(1))
    folder.save("best_epoch", 2, snapshot(2))
    assert names(folder) == sorted([*foreign, "best_epoch_2"])


def test_the_newest_is_by_run_then_epoch_then_batch(folder: CheckpointFolder) -> None:
    assert folder.newest() is None
    assert folder.last_run() == 0
    folder.save("epoch", 9, snapshot(9))
    folder.save("epoch", 2, snapshot(2, run=2))
    folder.save("last_epoch", 3, snapshot(2, batch=5, run=2))
    found = folder.newest()
    assert found is not None and found[0].name == "last_epoch_3"
    assert folder.last_run() == 2


@pytest.mark.parametrize("damage", ["missing file", "changed file", "no index"])
def test_a_damaged_one_is_passed_over_and_said(folder: CheckpointFolder, said: list[str], damage: str) -> None:
    folder.save("epoch", 1, snapshot(1))
    folder.save("last_epoch", 2, snapshot(2))
    newest = folder.path / "last_epoch_2"
    if damage == "missing file":
        (newest / "rng.json").unlink()
    elif damage == "changed file":
        (newest / "rng.json").write_text((newest / "rng.json").read_text().replace("2", "3"))
    else:
        (newest / "checkpoint.json").unlink()
    found = folder.newest()
    assert found is not None and found[0].name == "epoch_1" and found[1].trees["rng"] == [1]
    assert any("last_epoch_2" in line and "passed over" in line for line in said)


def test_a_disk_that_will_not_have_it_is_reported(folder: CheckpointFolder, said: list[str]) -> None:
    folder.save("last_epoch", 1, snapshot(1))
    shutil.move(folder.path, folder.path.with_name("elsewhere"))
    folder.path.write_text("in the way")
    assert not folder.save("last_epoch", 2, snapshot(2))
    assert len(said) == 1 and "could not be saved" in said[0]


def test_numbers_are_numbers() -> None:
    held = {f"model_{number}": number for number in (10, 2, 1, 0, 3, 4, 5, 6, 7, 8, 9)}
    assert numbered({**held, "model_x": -1, "optimizer_0": -1}, "model") == list(range(11))
    with pytest.raises(CheckpointError, match="missing"):
        numbered({"model_0": 0, "model_2": 2}, "model")
