"""Which checkpoints there are, which to keep, and which to go on from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import CheckpointError
from dowdyboy_core._disk.files import Content, numbered, read_index, write_folder
from dowdyboy_core._disk.folders import UNFINISHED
from dowdyboy_core._run.checkpoints import CheckpointFolder, Snapshot, read_snapshot

MISSING = object()


def snapshot(epoch: int, /, **changed: Any) -> Content:
    counts = {"world_size": 1, "metrics_bytes": 0, "train_step": 3 * epoch, "val_step": 0, "val_batch": None}
    texts = dict.fromkeys(("dowdyboy", "backend", "backend_version", "python", "name", "precision"), "x")
    place = {"run": 1, "epoch": epoch, "batch": 0, "best": None, "best_epoch": None, "best_type": "min"}
    index = {**counts, **texts, **place, **changed}
    index = {name: value for name, value in index.items() if value is not MISSING}
    return Snapshot(index, {}, {"rng": [epoch], "records": {}, "scaler": {}}).content()


def damage(checkpoint: Path) -> str:
    """Takes a file away; gives what is said of that."""
    (checkpoint / "rng.json").unlink()
    missing = str(checkpoint / "rng.json")
    return (
        f"Checkpoint {str(checkpoint)!r} is passed over: {missing!r} can't be read: [Errno 2] No such file or "
        f"directory: {missing!r}."
    )


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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


@pytest.mark.parametrize("validated", [0, 1, 2])
def test_validation_is_later_than_the_training_before_it(folder: CheckpointFolder, validated: int) -> None:
    folder.save("last_epoch", 3, snapshot(2, batch=5))
    folder.save("epoch", 2, snapshot(2, batch=5, val_batch=validated))
    folder.save("epoch", 3, snapshot(2, batch=4, val_batch=7))
    found = folder.newest()
    assert found is not None and found[0].name == "epoch_2"
    assert folder.holds_later(read_index(folder.path / "last_epoch_3"))
    assert not folder.holds_later(read_index(folder.path / "epoch_2"))


def test_a_checkpoint_is_there_with_the_index_that_it_was_written_with(folder: CheckpointFolder) -> None:
    folder.save("epoch", 1, snapshot(1))
    index = read_index(folder.path / "epoch_1")
    assert folder.has("epoch", 1, index)
    assert not folder.has("epoch", 1, {**index, "run": 2})
    assert not folder.has("epoch", 2, index)
    assert not folder.has("last_epoch", 1, index)
    damage(folder.path / "epoch_1")
    assert not folder.has("epoch", 1, index)


def write_both(folder: CheckpointFolder, kind: str) -> tuple[Path, Path]:
    """Two of a kind of which there should be one, as a kill between writing and removing leaves them."""
    for epoch in (9, 10):
        write_folder(folder.path / f"{kind}_{epoch}", snapshot(epoch))
    return folder.path / f"{kind}_9", folder.path / f"{kind}_10"


def test_the_best_is_the_newest_that_is_whole(folder: CheckpointFolder, said: list[str]) -> None:
    assert folder.best() is None
    folder.save("last_epoch", 11, snapshot(11))
    older, newer = write_both(folder, "best_epoch")
    assert folder.best() == read_index(newer)
    told = damage(newer)
    assert folder.best() == read_index(older)
    assert said == [told]


@pytest.mark.parametrize("kind", ["last_epoch", "best_epoch"])
def test_tidying_leaves_one_of_a_kind(folder: CheckpointFolder, said: list[str], kind: str) -> None:
    for epoch in (1, 2):
        folder.save("epoch", epoch, snapshot(epoch))
    _, newer = write_both(folder, kind)
    for name in (f"{UNFINISHED}{kind}_3", f"{UNFINISHED}mine"):
        (folder.path / name).mkdir()
    folder.tidy()
    assert names(folder) == sorted(["epoch_1", "epoch_2", newer.name, f"{UNFINISHED}mine"])
    assert said == []


def test_tidying_leaves_the_newest_that_is_whole(folder: CheckpointFolder, said: list[str]) -> None:
    older, newer = write_both(folder, "last_epoch")
    told = [damage(newer)]
    folder.tidy()
    assert names(folder) == [newer.name, older.name] and said == told
    told.append(damage(older))
    folder.tidy()
    folder.tidy()
    assert names(folder) == [newer.name, older.name]
    assert said == told, "each problem is told once"


def test_tidying_does_not_read_the_only_one_of_a_kind(folder: CheckpointFolder, said: list[str]) -> None:
    folder.save("last_epoch", 1, snapshot(1))
    damage(folder.path / "last_epoch_1")
    folder.tidy()
    assert said == []


def test_what_can_not_be_tidied_is_reported(
    folder: CheckpointFolder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> None:
        raise OSError("the disk has gone")

    monkeypatch.setattr("dowdyboy_core._run.checkpoints.tidy", failing)
    folder.tidy()
    assert said == [
        f"{str(folder.path)!r} can't be tidied: the disk has gone. What a killed run left there stays for now."
    ]


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


def test_what_is_passed_over_and_why_is_told_once(folder: CheckpointFolder, said: list[str]) -> None:
    folder.save("epoch", 1, snapshot(1))
    folder.save("epoch", 2, snapshot(2))
    told = damage(folder.path / "epoch_2")
    for _ in range(2):
        found = folder.newest()
        assert found is not None and found[0].name == "epoch_1"
    assert said == [told]


def test_a_disk_that_will_not_have_it_is_reported(folder: CheckpointFolder, said: list[str]) -> None:
    folder.save("last_epoch", 1, snapshot(1))
    shutil.move(folder.path, folder.path.with_name("elsewhere"))
    folder.path.write_text("in the way")
    assert not folder.save("last_epoch", 2, snapshot(2))
    assert said == [
        f"Checkpoint {str(folder.path / 'last_epoch_2')!r} could not be saved: [Errno 17] File exists: "
        f"{str(folder.path)!r}. Training goes on without it."
    ]


COUNTS = ("run", "world_size", "metrics_bytes", "epoch", "batch", "train_step", "val_step")
TEXTS = ("dowdyboy", "backend", "backend_version", "python", "name", "precision", "best_type")
NO_COUNT = [MISSING, -1, 2**53 + 1, 1.0, True, "1", []]
REFUSED: dict[str, list[Any]] = {
    **{name: [None, *NO_COUNT] for name in COUNTS},
    **dict.fromkeys(("val_batch", "best_epoch"), NO_COUNT),
    **{name: [MISSING, None, 1, []] for name in TEXTS},
    "best": [MISSING, 1, True, "1", []],
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_index_with_a_field_of_another_kind_is_refused(folder: CheckpointFolder, said: list[str], name: str) -> None:
    path = folder.path / "epoch_2"
    folder.save("epoch", 1, snapshot(1))
    for value in REFUSED[name]:
        write_folder(path, snapshot(2, **{name: value}))
        shown = "nothing" if value is MISSING else value
        text = f"checkpoint.json in {str(path)!r} has no {name} of the right kind: {shown!r}."
        with pytest.raises(CheckpointError) as caught:
            read_snapshot(path)
        assert str(caught.value) == f"{text} Use another checkpoint."
        found = folder.newest()
        assert found is not None and found[0].name == "epoch_1"
        assert said[-1] == f"Checkpoint {str(path)!r} is passed over: {text}"


def test_an_index_with_the_largest_numbers_is_read(folder: CheckpointFolder) -> None:
    largest = {**dict.fromkeys((*COUNTS, "val_batch", "best_epoch"), 2**53), "best": -1.5e300}
    write_folder(folder.path / "epoch_1", snapshot(1, **largest))
    assert read_snapshot(folder.path / "epoch_1").index.items() >= largest.items()


def test_the_weights_alone_ask_for_no_more_than_the_backend(folder: CheckpointFolder) -> None:
    rest = dict.fromkeys({*COUNTS, *TEXTS, "best", "val_batch", "best_epoch"} - {"backend"}, MISSING)
    write_folder(folder.path / "epoch_1", snapshot(1, **rest))
    for name in ("rng", "records", "scaler"):
        (folder.path / "epoch_1" / f"{name}.json").unlink()
    found = read_snapshot(folder.path / "epoch_1", weights_only=True)
    assert (found.index["backend"], found.weights, found.trees) == ("x", {}, {})
    write_folder(folder.path / "epoch_1", snapshot(1, backend=MISSING))
    with pytest.raises(CheckpointError, match="has no backend of the right kind: 'nothing'"):
        read_snapshot(folder.path / "epoch_1", weights_only=True)


def test_numbers_are_numbers() -> None:
    held = {f"model_{number}": number for number in (10, 2, 1, 0, 3, 4, 5, 6, 7, 8, 9)}
    assert numbered({**held, "model_x": -1, "optimizer_0": -1}, "model") == list(range(11))
    with pytest.raises(CheckpointError, match="missing"):
        numbered({"model_0": 0, "model_2": 2}, "model")
