"""Folders are put in place, replaced and removed so that whatever is left half-way can be mended."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dowdyboy_core import CheckpointError
from dowdyboy_core._disk import folders as _folders
from dowdyboy_core._disk.files import is_whole, prepare, write_folder
from dowdyboy_core._disk.folders import (
    REPLACED,
    UNFINISHED,
    make_folder,
    remove_folder,
    sync_folder,
    tidy,
    where_it_lies,
)
from dowdyboy_core._run.checkpoints import CheckpointFolder, read_snapshot


def write(folder: Path, number: int) -> None:
    write_folder(folder, prepare({"number": number}, {}, {"rng": [number]}))


def number_in(folder: Path) -> str:
    return (folder / "rng.json").read_text()


def mend(parent: Path) -> None:
    tidy(parent, lambda name: name == "one", is_whole)


def names(parent: Path) -> set[str]:
    return {path.name for path in parent.iterdir()}


def test_a_folder_that_can_not_be_renamed_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one", 1)
    rename = os.rename

    def refuse(before: Path, after: Path) -> None:
        if Path(before).name.startswith(UNFINISHED):
            raise OSError(errno.EIO, "it is broken")
        rename(before, after)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="broken"):
        write(tmp_path / "one", 2)
    assert names(tmp_path) == {"one"} and "1" in number_in(tmp_path / "one")


@pytest.mark.parametrize("kind", ["file", "link", "broken link"])
def test_what_is_in_the_way_is_replaced_and_not_followed(tmp_path: Path, kind: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    one = tmp_path / "parent" / "one"
    one.parent.mkdir()
    if kind == "file":
        one.write_text("in the way")
    else:
        one.symlink_to(mine if kind == "link" else tmp_path / "nothing")
    write(one, 1)
    assert is_whole(one) and not one.is_symlink() and names(one.parent) == {"one"}
    assert (mine / "file").read_text() == "mine"


def test_of_two_the_whole_one_stays(tmp_path: Path) -> None:
    """A disk that lost the content of what it has renamed, though it was told to keep it."""
    one, replaced = tmp_path / "one", tmp_path / f"{REPLACED}one"
    write(one, 1)
    one.rename(replaced)
    write(one, 2)
    (one / "rng.json").write_text("")
    mend(tmp_path)
    assert names(tmp_path) == {"one"} and is_whole(one) and "1" in number_in(one)


@pytest.mark.parametrize("damaged", [True, False])
def test_of_two_the_newer_one_stays(tmp_path: Path, damaged: bool) -> None:
    one, replaced = tmp_path / "one", tmp_path / f"{REPLACED}one"
    write(one, 1)
    one.rename(replaced)
    write(one, 2)
    for folder in (one, replaced) if damaged else ():
        (folder / "rng.json").unlink()
    mend(tmp_path)
    assert names(tmp_path) == {"one"} and is_whole(one) is not damaged
    assert '"number": 2' in (one / "checkpoint.json").read_text()


def test_what_is_hidden_by_others_is_left_alone(tmp_path: Path) -> None:
    hidden = {f"{mark}{name}" for mark in (UNFINISHED, REPLACED) for name in ("two", "one_mine", "")}
    for name in hidden:
        (tmp_path / name).mkdir()
    (tmp_path / f"{UNFINISHED}one").mkdir()
    mend(tmp_path)
    assert names(tmp_path) == hidden


def test_where_nothing_was_written_there_is_nothing_to_tidy(tmp_path: Path) -> None:
    mend(tmp_path / "missing")
    (tmp_path / "file").touch()
    mend(tmp_path / "file")
    assert names(tmp_path) == {"file"}


def test_what_can_not_be_cleared_away_stays_for_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / f"{UNFINISHED}one"
    write(left, 1)

    def refuse(path: str, **rest: int) -> None:
        raise PermissionError(errno.EACCES, "not yours")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        mend(tmp_path)
    assert names(tmp_path) == {left.name}
    mend(tmp_path)
    assert names(tmp_path) == set()


def test_a_folder_that_is_removed_half_way_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one", 1)

    def refuse(path: Path) -> None:
        (path / "rng.json").unlink()
        raise OSError(errno.EIO, "it is broken")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="broken"):
        patch.setattr(_folders.shutil, "rmtree", refuse)
        remove_folder(tmp_path / "one")
    assert names(tmp_path) == {f"{UNFINISHED}one"}
    mend(tmp_path)
    assert names(tmp_path) == set()


def test_what_a_kill_moved_aside_is_read(tmp_path: Path) -> None:
    one, replaced = tmp_path / "one", tmp_path / f"{REPLACED}one"
    write(one, 1)
    one.rename(replaced)
    assert where_it_lies(one) == replaced
    with pytest.raises(CheckpointError, match="has no dowdyboy of the right kind"):
        read_snapshot(one)  # it is found, and is no checkpoint of a run
    write(one, 2)
    assert where_it_lies(one) == one


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_only_a_disk_that_fails_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    if fails:
        with pytest.raises(OSError, match=os.strerror(number)):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)


def test_a_disk_around_the_one_that_is_written_to_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        if folder == tmp_path:
            raise OSError(errno.EIO, "it is broken")

    (tmp_path / "checkpoint").mkdir()
    monkeypatch.setattr(_folders, "sync_folder", refuse)
    write(tmp_path / "checkpoint" / "one", 1)
    assert is_whole(tmp_path / "checkpoint" / "one")


def test_each_folder_that_is_made_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(_folders, "sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path / "a", tmp_path]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_an_old_one_that_can_not_be_removed_is_told_and_the_new_one_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    folder = CheckpointFolder(tmp_path, said.append)
    content = prepare({}, {}, {})
    assert folder.save("last_epoch", 1, content)
    with monkeypatch.context() as patch:
        patch.setattr("dowdyboy_core._run.checkpoints.remove_folder", lambda path: os.rmdir(path))  # noqa: PTH106
        assert folder.save("last_epoch", 2, content)
    [text] = said
    assert "last_epoch_1' can't be removed: " in text and "not empty" in text
    assert folder.save("last_epoch", 3, content)
    assert names(tmp_path) == {"last_epoch_3"}


def test_a_link_of_the_user_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    folder = CheckpointFolder(tmp_path / "checkpoint", pytest.fail)
    folder.path.mkdir()
    (folder.path / "last_epoch_1").symlink_to(tmp_path / "archive")
    for number in (2, 3):
        assert folder.save("last_epoch", number, prepare({}, {}, {}))
    assert names(folder.path) == {"last_epoch_1", "last_epoch_3"}
