"""Splitting an image folder, killed at any moment, and CIFAR-10 from an archive made here."""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dowdyboy_core
from dowdyboy_core._errors import ConfigError, SetupError
from dowdyboy_core._utilities import cifar10 as _cifar10
from dowdyboy_core._utilities import split as _split
from dowdyboy_core.dataset_util import generate_cifar10_image_folder, split_val_dataset_image_folder

SOURCE = str(Path(dowdyboy_core.__file__).parents[1])


def _tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, with its contents."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _images(folder: Path) -> dict[str, str]:
    """The files that readers of image folders see."""
    return {name: text for name, text in _tree(folder).items() if not Path(name).name.startswith(".")}


def _make(folder: Path, **classes: int) -> Path:
    for label, number in classes.items():
        (folder / label).mkdir(parents=True)
        for index in range(number):
            (folder / label / f"{index}.png").write_text(f"{label} {index}")
    return folder


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return _make(tmp_path / "train", cat=12, dog=20, emu=8)


@pytest.fixture
def val(tmp_path: Path) -> Path:
    return tmp_path / "data" / "val"


# ---------------------------------------------------------------------------------------- what is split off


def test_files_move_and_nothing_else_changes(train: Path, val: Path) -> None:
    before = _tree(train)
    pairs = split_val_dataset_image_folder(train, val)
    assert len(pairs) == 4
    moved = {
        target.relative_to(val).as_posix(): before[source.relative_to(train).as_posix()] for source, target in pairs
    }
    assert _images(val) == moved
    assert {**_tree(train), **moved} == before
    assert not _tree(train).keys() & moved.keys()
    assert sorted(path.name for path in val.iterdir()) == [".split.json", "cat", "dog", "emu"]


def test_pairs_are_sorted_and_keep_their_place(train: Path, val: Path) -> None:
    pairs = split_val_dataset_image_folder(str(train), str(val), 0.5)
    assert pairs == sorted(pairs)
    assert all(source.relative_to(train) == target.relative_to(val) for source, target in pairs)


def test_copying_leaves_train_as_it_is(train: Path, val: Path) -> None:
    before = _tree(train)
    os.utime(train / "cat" / "0.png", (1, 1))
    pairs = split_val_dataset_image_folder(train, val, 0.9, mode="copy")
    assert len(pairs) == 36
    assert _tree(train) == before
    assert _images(val).items() <= before.items()
    copied = [target for source, target in pairs if source == train / "cat" / "0.png"]
    assert all(target.stat().st_mtime == 1 for target in copied)


@pytest.mark.parametrize(
    ("arguments", "per_class"),
    [
        ({"rate": 0.25, "per_class": True}, [3, 5, 2]),
        ({"rate": 0.1, "per_class": True}, [1, 2, 0]),
        ({"count": 3, "per_class": True}, [3, 3, 3]),
        ({"count": 7, "rate": 0.5}, 7),
        ({"rate": 0.5}, 20),
        ({"rate": 0.99}, 39),
    ],
)
def test_how_many_go(arguments: dict[str, Any], per_class: Any, train: Path, val: Path) -> None:
    pairs = split_val_dataset_image_folder(train, val, **arguments)
    numbers = [sum(source.parent.name == label for source, _ in pairs) for label in ("cat", "dog", "emu")]
    assert (numbers if isinstance(per_class, list) else sum(numbers)) == per_class
    assert len(_images(val)) == len(pairs)


def test_a_rate_means_its_decimal_number(tmp_path: Path) -> None:
    # 100 * 0.29 is 28.999999999999996
    pairs = split_val_dataset_image_folder(_make(tmp_path / "t", a=100), tmp_path / "v", 0.29, dry_run=True)
    assert len(pairs) == 29


def test_the_seed_and_the_names_alone_decide(train: Path, val: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = functools.partial(split_val_dataset_image_folder, train, val, 0.3, dry_run=True)
    first = split()
    assert split() == first
    assert split(seed=1) != first
    assert split(seed=1) == split(seed=1)
    assert {source.parent.name for source, _ in first} == {"cat", "dog", "emu"}
    # another order of the folder's entries, on another machine
    scandir = os.scandir

    class _Backwards(list[Any]):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

    def backwards(path: Any) -> Any:
        with scandir(path) as entries:
            return _Backwards(sorted(entries, key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", backwards)
    assert split() == first


def test_the_choice_is_the_same_in_every_version(tmp_path: Path) -> None:
    pairs = split_val_dataset_image_folder(_make(tmp_path / "t", a=9, b=9), tmp_path / "v", count=4, seed=3)
    assert [source.relative_to(tmp_path / "t").as_posix() for source, _ in pairs] == [
        "a/0.png",
        "a/1.png",
        "a/5.png",
        "b/4.png",
    ]


def test_every_file_is_chosen_equally_often(tmp_path: Path) -> None:
    train = _make(tmp_path / "t", a=10)
    drawn = [
        source.name
        for seed in range(400)
        for source, _ in split_val_dataset_image_folder(train, tmp_path / "v", 0.5, seed=seed, dry_run=True)
    ]
    # 400 draws at one half: 200 with a standard deviation of 10
    assert all(150 < drawn.count(f"{index}.png") < 250 for index in range(10))


def test_a_dry_run_touches_nothing(train: Path, val: Path) -> None:
    before = _tree(train)
    planned = split_val_dataset_image_folder(train, val, dry_run=True)
    assert _tree(train) == before
    assert not val.parent.exists()
    assert split_val_dataset_image_folder(train, val) == planned


def test_hidden_loose_and_nested_files(train: Path, val: Path) -> None:
    (train / "labels.txt").write_text("not a class")
    (train / "cat" / ".DS_Store").write_text("not an image")
    _make(train / ".git", objects=3)
    _make(train / "cat", deep=2)
    _make(train / "cat", **{".hidden": 2})
    (train / "none").mkdir()
    pairs = split_val_dataset_image_folder(train, val, count=41)
    assert len(pairs) == 41
    left = _tree(train)
    assert {"labels.txt", "cat/.DS_Store", ".git/objects/0.png", "cat/.hidden/1.png"} < left.keys()
    assert len(left) == 1 + 1 + 3 + 2 + 1
    assert "cat/deep/0.png" in {**_images(val), **left}
    assert (val / "none").is_dir()
    deep = [target for source, target in pairs if source.parent.name == "deep"]
    assert deep
    assert all(target.parent == val / "cat" / "deep" for target in deep)


@pytest.mark.parametrize("mode", ["move", "copy"])
def test_a_class_is_what_lies_below_its_folder_however_deep(mode: str, val: Path, tmp_path: Path) -> None:
    for label in ("cat/a", "cat/b/c", "dog/d/e"):
        _make(tmp_path / "train" / label, f=6)
    pairs = split_val_dataset_image_folder(tmp_path / "train", val, count=3, per_class=True, mode=mode)
    assert [target.relative_to(val).parts[0] for _, target in pairs] == ["cat"] * 3 + ["dog"] * 3
    assert all(target.is_file() for _, target in pairs)


def test_names_of_every_kind_survive(tmp_path: Path, val: Path) -> None:
    names = ["ä ö.png", "新.png", "a\nb.png", os.fsdecode(b"\xff.png"), "x" * 255, "'\".png"]
    (tmp_path / "t" / "c d").mkdir(parents=True)
    for name in [*names, "stays.png"]:
        (tmp_path / "t" / "c d" / name).write_text("x")
    split_val_dataset_image_folder(tmp_path / "t", val, count=6, mode="copy")
    split_val_dataset_image_folder(tmp_path / "t", tmp_path / "v2", count=6)
    assert set(_images(val)) == set(_images(tmp_path / "v2"))
    assert {*_images(tmp_path / "v2"), *_images(tmp_path / "t")} == {f"c d/{name}" for name in [*names, "stays.png"]}


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        *(
            ({"rate": rate}, f"rate={rate!r} is not a number above 0 and below 1")
            for rate in (0, 1, 0.0, 1.0, -0.1, 2.5)
        ),
        *(({"rate": rate}, f"rate={rate!r}") for rate in (float("nan"), True, "0.1", None)),
        *(({"count": count}, f"count={count!r} is not an integer of at least 1") for count in (0, -1, 2.0, True, "3")),
        ({"count": 40}, "count=40 leaves nothing to train on: there are 40 files"),
        ({"count": 8, "per_class": True}, "count=8 leaves nothing to train on: class 'emu' has 8 files"),
        ({"rate": 0.02}, "rate=0.02 of 40 files is less than one"),
        ({"rate": 0.04, "per_class": True}, "rate=0.04 of 40 files is less than one"),
        ({"per_class": 1}, "per_class=1 is not True or False"),
        ({"seed": 1.5}, "seed=1.5 is not an integer"),
        ({"seed": True}, "seed=True is not an integer"),
        ({"mode": "link"}, "mode='link' is not one of 'move', 'copy'"),
    ],
)
def test_arguments_are_checked_before_anything_is_touched(
    arguments: dict[str, Any], says: str, train: Path, val: Path
) -> None:
    before = _tree(train)
    with pytest.raises(ConfigError, match=says):
        split_val_dataset_image_folder(train, val, **arguments)
    assert _tree(train) == before
    assert not val.exists()


def test_folders_are_checked(train: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(train / "cat")
    (tmp_path / "file").touch()
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    for val in (train / "val", train, tmp_path, tmp_path / "link", train / "x" / ".." / "val"):
        with pytest.raises(ConfigError) as caught:
            split_val_dataset_image_folder(train, val)
        assert str(caught.value) == (
            f"data_val_dir={str(val)!r} and data_train_dir={str(train)!r} lie in each other, so that one would be a "
            "class of the other. Give two folders side by side."
        )
    with pytest.raises(ConfigError, match=r"data_val_dir=.*file' is a file"):
        split_val_dataset_image_folder(train, tmp_path / "file")
    for absent in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"data_train_dir=.* is not a folder"):
            split_val_dataset_image_folder(absent, tmp_path / "val")
    with pytest.raises(SetupError, match="holds no files in class folders"):
        split_val_dataset_image_folder(tmp_path / "empty", tmp_path / "val")
    assert len(_tree(train)) == 40


def test_links_are_refused(train: Path, val: Path, tmp_path: Path) -> None:
    other = _make(tmp_path / "other", cow=3)
    for link, to in ((train / "cat" / "link.png", other / "cow" / "0.png"), (train / "cow", other / "cow")):
        link.symlink_to(to)
        with pytest.raises(SetupError, match="is a symbolic link"):
            split_val_dataset_image_folder(train, val)
        link.unlink()
    (train / "cat" / "broken").symlink_to("nowhere")
    with pytest.raises(SetupError, match=r"broken is a symbolic link"):
        split_val_dataset_image_folder(train, val)
    assert len(_tree(other)) == 3
    assert not val.exists()


def test_val_folders_that_lead_back_into_train_are_refused(train: Path, val: Path) -> None:
    # a file would be compared with itself, and removed as a copy of itself
    val.mkdir(parents=True)
    for label in ("cat", "dog", "emu"):
        (val / label).symlink_to(train / label)
    before = _tree(train)
    with pytest.raises(SetupError, match="through a symbolic link"):
        split_val_dataset_image_folder(train, val)
    assert _tree(train) == before


def test_a_hard_link_to_the_file_itself_is_refused(train: Path, val: Path) -> None:
    source, target = split_val_dataset_image_folder(train, val, dry_run=True)[0]
    target.parent.mkdir(parents=True)
    os.link(source, target)
    with pytest.raises(SetupError, match="is not a copy of"):
        split_val_dataset_image_folder(train, val)
    assert len(_tree(train)) == 40


@pytest.mark.parametrize("mode", ["move", "copy"])
@pytest.mark.parametrize("other", ["something else", "cat X"])
def test_a_different_file_in_the_way_is_never_replaced(mode: str, other: str, train: Path, val: Path) -> None:
    source, target = split_val_dataset_image_folder(train, val, mode=mode, dry_run=True)[-1]
    target.parent.mkdir(parents=True)
    target.write_text(other[: len(source.read_text())] if other.startswith("cat") else other)
    mine = target.read_text()
    with pytest.raises(SetupError, match="is there and is not a copy of"):
        split_val_dataset_image_folder(train, val, mode=mode)
    assert target.read_text() == mine
    assert len(_tree(train)) == 40
    assert _tree(val) == {target.relative_to(val).as_posix(): mine}


def test_a_file_that_appears_in_the_way_while_moving_is_not_replaced(
    train: Path, val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = split_val_dataset_image_folder(train, val, dry_run=True)[-1][1]
    write_plan = _split._write_plan

    def and_a_file(folder: Path, plan: dict[str, Any]) -> None:
        write_plan(folder, plan)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("just made")

    monkeypatch.setattr(_split, "_write_plan", and_a_file)
    with pytest.raises(SetupError, match="has just been made"):
        split_val_dataset_image_folder(train, val)
    assert target.read_text() == "just made"
    assert len(_images(train)) + len(_images(val)) == 41


def test_an_equal_file_that_is_there_is_as_good_as_moved(train: Path, val: Path) -> None:
    before = _tree(train)
    source, target = split_val_dataset_image_folder(train, val, dry_run=True)[0]
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    split_val_dataset_image_folder(train, val)
    assert not source.exists()
    assert {**_tree(train), **_images(val)} == before


@pytest.mark.parametrize("differs", [False, True])
def test_files_are_compared_to_their_last_byte(differs: bool, train: Path, val: Path) -> None:
    for source, target in split_val_dataset_image_folder(train, val, dry_run=True):
        content = bytes(range(250)) * 11_000  # more than is read at once
        source.write_bytes(content)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content[:-1] + b"x" if differs else content)
    if differs:
        with pytest.raises(SetupError, match="is not a copy of"):
            split_val_dataset_image_folder(train, val)
    else:
        split_val_dataset_image_folder(train, val)
    assert len(list(train.rglob("*.png"))) == (40 if differs else 36)


def test_a_link_to_a_copy_is_no_copy(train: Path, val: Path, tmp_path: Path) -> None:
    source, target = split_val_dataset_image_folder(train, val, dry_run=True)[0]
    target.parent.mkdir(parents=True)
    (tmp_path / "copy").write_bytes(source.read_bytes())
    target.symlink_to(tmp_path / "copy")
    with pytest.raises(SetupError, match="is not a copy of"):
        split_val_dataset_image_folder(train, val)
    assert len(_tree(train)) == 40


def test_on_another_file_system_files_are_copied_and_removed(
    train: Path, val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another file system")

    before = _tree(train)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        split_val_dataset_image_folder(train, val)
    assert len(_images(val)) == 4 and len(_tree(train)) == 36
    assert {**_tree(train), **_images(val)} == before


def test_what_is_copied_is_synced_before_it_counts_as_done(
    train: Path, val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, int] = {}

    def note(handle: int) -> None:
        synced[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    monkeypatch.setattr(os, "fsync", note)
    pairs = split_val_dataset_image_folder(train, val, mode="copy")
    for _, target in pairs:
        assert synced[target.stat().st_ino] == target.stat().st_size
        assert target.parent.stat().st_ino in synced
    assert synced[(val / ".split.json").stat().st_ino] == (val / ".split.json").stat().st_size
    assert val.stat().st_ino in synced


# ---------------------------------------------------------------------------------------------- running twice


@pytest.mark.parametrize("mode", ["move", "copy"])
def test_a_second_call_says_what_was_done(mode: str, train: Path, val: Path) -> None:
    split_val_dataset_image_folder(train, val, 0.25, seed=9, mode=mode)
    before = _tree(train), _tree(val)
    for again in ({"rate": 0.25, "seed": 9, "mode": mode}, {"count": 1}, {"dry_run": True}):
        with pytest.raises(SetupError, match=r"was already split off: 10 files, with .*rate=0.25.*seed=9.*Delete"):
            split_val_dataset_image_folder(train, val, **again)
    assert (_tree(train), _tree(val)) == before
    (val / ".split.json").unlink()
    if mode == "move":
        assert len(split_val_dataset_image_folder(train, val, 0.5)) == 15
        assert len(_images(val)) == 25


def _stopped(train: Path, val: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    """A split that fails at its third file."""
    transfer, calls = _split._transfer, []

    def failing(source: Path, target: Path, mode: str) -> None:
        calls.append(source)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "no space left")
        transfer(source, target, mode)

    planned = split_val_dataset_image_folder(train, val, dry_run=True)
    with monkeypatch.context() as patch:
        patch.setattr(_split, "_transfer", failing)
        with pytest.raises(OSError, match="no space left"):
            split_val_dataset_image_folder(train, val)
    assert len(_images(val)) == 2
    return planned


def test_a_stopped_split_goes_on_with_the_same_arguments_only(
    train: Path, val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = _stopped(train, val, monkeypatch)
    with pytest.raises(SetupError) as caught:
        split_val_dataset_image_folder(train, val, count=5, seed=2)
    assert str(caught.value) == (
        f"{val} holds a split that was stopped half-way, with rate=0.1 (now None), seed=0 (now 2), count=None (now 5). "
        "Finish it with those first."
    )
    for other in ({"seed": 1}, {"rate": 0.2}, {"count": 4}, {"per_class": True}, {"mode": "copy"}):
        name = next(iter(other))
        with pytest.raises(SetupError, match=rf"stopped half-way, with .*{name}=.* \(now {other[name]!r}\)"):
            split_val_dataset_image_folder(train, val, **other)
    with pytest.raises(SetupError, match="stopped half-way, with train="):
        split_val_dataset_image_folder(_make(train.parent / "t2", cat=40), val)
    assert len(_images(val)) == 2
    # the plan counts, also if there are other files by now
    (train / "cat" / "new.png").write_text("new")
    assert split_val_dataset_image_folder(train, val, dry_run=True) == planned
    assert len(_images(val)) == 2
    assert split_val_dataset_image_folder(train, val) == planned
    assert len(_images(val)) == 4
    with pytest.raises(SetupError) as caught:
        split_val_dataset_image_folder(train, val)
    assert str(caught.value) == (
        f"{val} was already split off: 4 files, with train={str(train)!r}, rate=0.1, per_class=False, seed=0, "
        f"mode='move'. Delete {val / '.split.json'} to split again."
    )


def test_a_file_that_vanished_in_between_is_reported(train: Path, val: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = _stopped(train, val, monkeypatch)
    planned[-1][0].unlink()
    with pytest.raises(SetupError, match=r"is neither in .* nor in"):
        split_val_dataset_image_folder(train, val)
    assert len(_images(val)) == 2


@pytest.mark.parametrize(
    "change",
    [
        "not json",
        "[]",
        {"format": 2},
        {"files": ["../cat/0.png"]},
        {"files": ["/etc/hosts"]},
        {"files": [3]},
        {"classes": [".."]},
        {"files": None},
        {"arguments": None},
        {"done": ...},
    ],
)
def test_a_plan_that_is_not_ours_is_refused(
    change: Any, train: Path, val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped(train, val, monkeypatch)
    path = val / ".split.json"
    if isinstance(change, str):
        path.write_text(change)
    else:
        plan = {**json.loads(path.read_text()), **change}
        path.write_text(json.dumps({name: value for name, value in plan.items() if value is not ...}))
    before = _tree(train.parent)
    with pytest.raises(SetupError, match=r"\.split\.json (can't be read as|is not) (the|a) plan"):
        split_val_dataset_image_folder(train, val)
    assert _tree(train.parent) == before


# ------------------------------------------------------------------------------- killed at any moment

# A small process that forks once per line it reads, splits in the child, and says how that ended. The child counts its
# file operations and kills itself in front of one; an audit hook sees them all, whatever function they come from.
_SPLITTER = """
import errno, os, signal, sys, traceback
from pathlib import Path
from dowdyboy_core._utilities import split as _split
from dowdyboy_core.dataset_util import split_val_dataset_image_folder

os.fsync = lambda handle: None  # slow, and no help against a kill

def split(root, mode, how, last):
    seen = 0
    def count(event, args):
        nonlocal seen
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.utime", "shutil.copyfile", "os.chmod"):
            if any(isinstance(arg, (str, os.PathLike)) and os.fspath(arg).startswith(root) for arg in args):
                seen += 1
                if seen == int(last):
                    os.kill(os.getpid(), signal.SIGKILL)
    rename = Path.rename
    def other_file_system(self, target):
        if self.parent.parent.name == "train":
            raise OSError(errno.EXDEV, "cross-device link")
        return rename(self, target)
    def half(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:3])
        os.kill(os.getpid(), signal.SIGKILL)
    if how != "same":
        Path.rename = other_file_system
    if how == "half":
        _split.shutil.copyfile = half
    sys.addaudithook(count)
    split_val_dataset_image_folder(root + "/train", root + "/val", 0.5, mode=mode)

for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            split(*line.rstrip().split("|"))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def split_in_a_process() -> Iterator[Callable[..., bool]]:
    """Splits in another process, killed before its last-th file operation (0: never); tells whether it was."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    env = {**os.environ, "PYTHONPATH": SOURCE}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _SPLITTER], env=env, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def split(root: Path, mode: str, how: str, last: int = 0) -> bool:
            print(root, mode, how, last, sep="|", file=questions, flush=True)
            code = int(answers.readline())
            assert code in (0, -signal.SIGKILL), "it failed with the error above"
            return code != 0

        yield split


def _is_done(plan: Path) -> bool:
    return plan.exists() and json.loads(plan.read_text())["done"] is True


@pytest.mark.parametrize(("mode", "how"), [("move", "same"), ("move", "across"), ("copy", "same")])
@pytest.mark.parametrize("twice", [False, True])
def test_killed_before_any_file_operation_nothing_is_lost(
    mode: str, how: str, twice: bool, tmp_path: Path, split_in_a_process: Callable[..., bool]
) -> None:
    whole = _tree(_make(tmp_path / "whole", cat=3, dog=3))
    chosen = None
    for last in range(1, 200):
        root = tmp_path / str(last)
        _make(root / "train", cat=3, dog=3)
        killed = split_in_a_process(root, mode, how, last)
        plan = root / "val" / ".split.json"
        if twice and not _is_done(plan):
            split_in_a_process(root, mode, how, max(4, last - 3))
        # every file is in one of the places, whole
        train, val = _images(root / "train"), _images(root / "val")
        assert {**train, **val} == whole, last
        assert {*train.items(), *val.items()} == {*whole.items()}, last
        if not _is_done(plan):
            assert killed
            assert not split_in_a_process(root, mode, how), last
        # and the call that finishes leaves what an uninterrupted one leaves
        train, val = _tree(root / "train"), _tree(root / "val")
        assert json.loads(val.pop(".split.json"))["done"] is True
        chosen = chosen or val.keys()
        assert val == {name: whole[name] for name in chosen}, last
        assert len(val) == 3
        assert train == {name: text for name, text in whole.items() if mode == "copy" or name not in chosen}, last
        if not killed:
            break
    else:
        pytest.fail("it never got to the end")
    assert last > 12


def test_killed_in_the_midst_of_a_copy_no_half_file_has_a_name(
    tmp_path: Path, split_in_a_process: Callable[..., bool]
) -> None:
    whole = _tree(_make(tmp_path / "train", cat=6))
    assert split_in_a_process(tmp_path, "move", "half")
    assert _images(tmp_path / "val") == {}
    assert _tree(tmp_path / "train") == whole
    assert not split_in_a_process(tmp_path, "move", "across")
    assert {**_tree(tmp_path / "train"), **_images(tmp_path / "val")} == whole
    assert sorted(_tree(tmp_path / "val")) == [".split.json", *sorted(_images(tmp_path / "val"))]


def test_another_error_of_rename_is_not_taken_for_another_file_system(
    train: Path, val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "not yours")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError, match="not yours"):
        split_val_dataset_image_folder(train, val)
    assert len(_tree(train)) == 40


def test_a_real_other_file_system(train: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == train.stat().st_dev or not os.access(shared, os.W_OK):
        pytest.skip("no second file system to write to")
    import tempfile

    before = _tree(train)
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        split_val_dataset_image_folder(train, Path(folder) / "val", 0.5)
        assert len(_images(Path(folder) / "val")) == len(_tree(train)) == 20
        assert {**_tree(train), **_images(Path(folder) / "val")} == before


# ---------------------------------------------------------------------------------------------- CIFAR-10

RECORDS = 7


def _pixels(number: int) -> bytes:
    return bytes((number * 31 + index * 7 + index // 1024) % 256 for index in range(3072))


def _members(records: int = RECORDS) -> dict[str, bytes]:
    """The files of the archive; image n of a split is of class n % 10."""
    members = {}
    for part in range(5):
        numbers = range(part * records, (part + 1) * records)
        data = b"".join(bytes([n % 10]) + _pixels(n) for n in numbers)
        members[f"cifar-10-batches-bin/data_batch_{part + 1}.bin"] = data
    data = b"".join(bytes([n % 10]) + _pixels(n + 100) for n in range(records))
    members["cifar-10-batches-bin/test_batch.bin"] = data
    return members


def _pack(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                tar.addfile(info)
    return buffer.getvalue()


def _archive(packed: bytes, url: str = "http://127.0.0.1:9/cifar-10-binary.tar.gz") -> _cifar10.Archive:
    return _cifar10.Archive(url=url, md5=hashlib.md5(packed).hexdigest(), records=RECORDS)


@pytest.fixture
def packed() -> bytes:
    return _pack({"cifar-10-batches-bin/batches.meta.txt": b"airplane\n", **_members(), "../escaped": b"x"})


@pytest.fixture
def data(tmp_path: Path, packed: bytes) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar-10-binary.tar.gz").write_bytes(packed)
    return tmp_path / "data"


def _decode(path: Path) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of a PNG; strict about all that the format asks for."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    position, chunks = 8, []
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        kind, body = content[position + 4 : position + 8], content[position + 8 : position + 8 + length]
        (crc,) = struct.unpack_from(">I", content, position + 8 + length)
        assert crc == zlib.crc32(kind + body)
        chunks.append((kind, body))
        position += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"] and chunks[2][1] == b""
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [8, 2, 0, 0, 0]
    lines = zlib.decompress(chunks[1][1])
    assert len(lines) == height * (1 + 3 * width)
    rows = [lines[y * (1 + 3 * width) : (y + 1) * (1 + 3 * width)] for y in range(height)]
    assert all(row[0] == 0 for row in rows)
    return width, height, b"".join(row[1:] for row in rows)


def test_images_are_written_without_loss(data: Path, packed: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _cifar10.make_folder(data, out, False, _archive(packed)) == 6 * RECORDS
    assert sorted(path.name for path in out.iterdir()) == ["test", "train"]
    for split, number, offset in (("train", 5 * RECORDS, 0), ("test", RECORDS, 100)):
        assert len(list((out / split).rglob("*.*"))) == number
        for n in range(number):
            label = "airplane automobile bird cat deer dog frog horse ship truck".split()[n % 10]
            width, height, rgb = _decode(out / split / label / f"{n}.png")
            assert (width, height) == (32, 32)
            planes = _pixels(n + offset)
            assert rgb == bytes(planes[c * 1024 + at] for at in range(1024) for c in range(3))
    assert len(list((out / "test").iterdir())) == 10  # a class without images has its folder, too
    assert not (tmp_path / "escaped").exists()


def test_an_image_need_not_be_square(tmp_path: Path) -> None:
    planes = bytes(range(18))
    (tmp_path / "a.png").write_bytes(_cifar10.png(planes, 3, 2))
    assert _decode(tmp_path / "a.png") == (3, 2, bytes(planes[c * 6 + at] for at in range(6) for c in range(3)))


def test_images_are_read_by_a_reader_of_others(data: Path, packed: bytes, tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    _cifar10.make_folder(data, tmp_path / "out", False, _archive(packed))
    read = image.imread(tmp_path / "out" / "train" / "cat" / "3.png")
    assert read.shape == (32, 32, 3)
    assert [round(value * 255) for value in read[1, 2]] == [_pixels(3)[c * 1024 + 34] for c in range(3)]


def test_a_further_call_writes_what_is_missing(data: Path, packed: bytes, tmp_path: Path) -> None:
    out, archive = tmp_path / "out", _archive(packed)
    _cifar10.make_folder(data, out, False, archive)
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    assert _cifar10.make_folder(data, out, False, archive) == 0
    for path in sorted(before)[::5]:
        path.unlink()
    kept = next(path for path in sorted(before) if path.exists())
    kept.write_bytes(b"mine")
    assert _cifar10.make_folder(data, out, False, archive) == len(sorted(before)[::5])
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == {**before, kept: b"mine"}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("last", [1, 22, *range(40, 46)])
def test_killed_while_writing_images(last: int, data: Path, packed: bytes, tmp_path: Path) -> None:
    out, archive = tmp_path / "out", _archive(packed)
    code = """
import os, signal, sys
from pathlib import Path
from dowdyboy_core._utilities import cifar10 as _cifar10
data, out, md5, records, last = sys.argv[1:]
seen = 0
def count(event, args):
    global seen
    if event in ("open", "os.rename", "os.mkdir") and str(args[0]).startswith(out):
        seen += 1
        if seen == int(last):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
_cifar10.make_folder(Path(data), Path(out), False, _cifar10.Archive("", md5, int(records)))
"""
    env = {**os.environ, "PYTHONPATH": SOURCE}
    command = [sys.executable, "-c", code, str(data), str(out), archive.md5, str(RECORDS), str(last)]
    assert subprocess.run(command, env=env).returncode == -signal.SIGKILL
    there = list(out.rglob("*.png"))
    for path in there:
        _decode(path)
    assert _cifar10.make_folder(data, out, False, archive) == 6 * RECORDS - len(there)
    assert sorted(path.name for path in out.iterdir()) == ["test", "train"]


def test_an_archive_that_is_not_the_one_is_refused(data: Path, packed: bytes, tmp_path: Path) -> None:
    path = data / "cifar-10-binary.tar.gz"
    path.write_bytes(packed[:-20])
    for download in (True, False):
        with pytest.raises(SetupError, match=r"cifar-10-binary\.tar\.gz does not have the MD5 .* cut short"):
            _cifar10.make_folder(data, tmp_path / "out", download, _archive(packed))
    # the real checksum, through the public function
    with pytest.raises(SetupError, match="does not have the MD5 c32a1d4ab5d03f1284b67883e8d87530"):
        generate_cifar10_image_folder(data, str(tmp_path / "out"), download=False)
    assert path.read_bytes() == packed[:-20]
    assert not (tmp_path / "out").exists()


def _link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/hosts"
    return info


_TEST = "cifar-10-batches-bin/test_batch.bin"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (b"no archive at all", "can't be read as a .tar.gz"),
        (b"", "can't be read as a .tar.gz"),
        (_pack(_members())[:-2000], "can't be read as a .tar.gz"),  # type: ignore[arg-type]
        (_pack({k: v for k, v in _members().items() if k != _TEST}), "has no cifar-10-batches-bin/test_batch.bin"),
        (_pack({**_members(), _TEST: b"\0" * 3073}), "test_batch.bin is not 7 images of 3073 bytes"),
        (_pack({**_members(), _TEST: b"\x0a" + b"\0" * (RECORDS * 3073 - 1)}), "of no class"),
        (_pack({**_members(), _TEST: _link(_TEST)}), "test_batch.bin is not 7 images"),
    ],
    ids=["text", "empty", "truncated", "member missing", "member short", "label", "link"],
)
def test_archives_with_broken_contents_are_refused(broken: bytes, says: str, data: Path, tmp_path: Path) -> None:
    (data / "cifar-10-binary.tar.gz").write_bytes(broken)
    with pytest.raises(SetupError, match=says) as caught:
        _cifar10.make_folder(data, tmp_path / "out", False, _archive(broken))
    assert str(caught.value).startswith(str(data / "cifar-10-binary.tar.gz"))
    for path in (tmp_path / "out").rglob("*.png"):
        _decode(path)


def test_without_an_archive_it_says_what_to_fetch(tmp_path: Path) -> None:
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    with pytest.raises(SetupError, match=rf"holds no cifar-10-binary\.tar\.gz\. .*{url}.*download=True"):
        generate_cifar10_image_folder(tmp_path, tmp_path / "out", download=False)
    (tmp_path / "cifar-10-python.tar.gz").touch()
    with pytest.raises(SetupError, match=rf"python\.tar\.gz alone.*unpickling.*run code\. Put .*{url}"):
        generate_cifar10_image_folder(tmp_path, tmp_path / "out", download=False)
    with pytest.raises(ConfigError, match="download=1 is not True or False"):
        generate_cifar10_image_folder(tmp_path, tmp_path / "out", download=1)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar-10-python.tar.gz"]


class _Server(http.server.ThreadingHTTPServer):
    reply: bytes = b""
    claims: int | None = None  # a Content-Length that differs from what comes
    requests = 0


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.path != "/cifar-10-binary.tar.gz":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.claims or len(self.server.reply)))
        self.end_headers()
        self.wfile.write(self.server.reply)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(packed: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.reply = packed
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _url(server: _Server, path: str = "/cifar-10-binary.tar.gz") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_the_archive_is_downloaded_once(server: _Server, packed: bytes, tmp_path: Path) -> None:
    data, archive = tmp_path / "new" / "data", _archive(packed, _url(server))
    assert _cifar10.make_folder(data, tmp_path / "out", True, archive) == 6 * RECORDS
    assert {path.name: path.read_bytes() for path in data.iterdir()} == {"cifar-10-binary.tar.gz": packed}
    assert _cifar10.make_folder(data, tmp_path / "out2", True, archive) == 6 * RECORDS
    assert server.requests == 1


def test_with_the_python_archive_alone_the_binary_one_is_downloaded(
    server: _Server, packed: bytes, tmp_path: Path
) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"pickles")
    assert _cifar10.make_folder(tmp_path, tmp_path / "out", True, _archive(packed, _url(server))) == 6 * RECORDS


@pytest.mark.parametrize(
    ("reply", "claims", "path", "says"),
    [
        (b"another file", None, "/cifar-10-binary.tar.gz", "gave a file with the MD5"),
        (b"cut short", 100, "/cifar-10-binary.tar.gz", "gave a file with the MD5|could not be downloaded"),
        (b"", None, "/nothing", "could not be downloaded to .*404"),
    ],
)
def test_a_failed_download_leaves_nothing(
    reply: bytes, claims: int | None, path: str, says: str, server: _Server, packed: bytes, tmp_path: Path
) -> None:
    server.reply, server.claims = reply, claims
    ending = re.escape(f". Try again, or put it into {tmp_path / 'data'} yourself.")
    with pytest.raises(SetupError, match=f"(?s)({says}).*{ending}$"):
        _cifar10.make_folder(tmp_path / "data", tmp_path / "out", True, _archive(packed, _url(server, path)))
    assert list((tmp_path / "data").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_a_server_that_falls_silent_is_given_up_after_a_minute(
    server: _Server, packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    fetch = urllib.request.urlopen

    def note(url: str, *, timeout: float) -> Any:
        waited.append(timeout)
        return fetch(url)

    monkeypatch.setattr(urllib.request, "urlopen", note)
    _cifar10.make_folder(tmp_path / "data", tmp_path / "out", True, _archive(packed, _url(server)))
    assert waited == [60]


@pytest.mark.parametrize("download", [{}, {"download": True}])
def test_the_archive_is_downloaded_unless_that_is_not_wanted(
    download: dict[str, bool], server: _Server, packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cifar10, "CIFAR10", _archive(packed, _url(server)))
    assert generate_cifar10_image_folder(tmp_path / "data", tmp_path / "out", **download) == 6 * RECORDS
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6 * RECORDS


def test_a_server_that_is_not_there(server: _Server, packed: bytes, tmp_path: Path) -> None:
    url = _url(server)
    server.server_close()
    with pytest.raises(SetupError, match="could not be downloaded"):
        _cifar10.make_folder(tmp_path / "data", tmp_path / "out", True, _archive(packed, url))
    assert list((tmp_path / "data").iterdir()) == []


def test_the_public_archive_is_the_published_one() -> None:
    assert _cifar10.CIFAR10.md5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert _cifar10.CIFAR10.url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert _cifar10.CIFAR10.records == 10_000
