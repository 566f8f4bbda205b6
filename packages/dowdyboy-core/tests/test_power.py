"""The power fails at any moment: of what was not synced the disk may have anything, and the newest checkpoint is whole.

A disk keeps what a file held when it was synced, and the names that a folder held when that was synced. Of what came
later it keeps the first so many changes of each folder, and of each file nothing or half. All of these are tried.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core._disk import files as _files
from dowdyboy_core._disk import folders as _folders
from dowdyboy_core._disk.files import Content
from dowdyboy_core._run import checkpoints as _checkpoint
from dowdyboy_core._run.checkpoints import CheckpointFolder, Snapshot

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to tell what is synced")


@dataclass
class Node:
    """A file or folder as the disk has it: what is on it for good, and the changes since."""

    is_folder: bool
    content: bytes | None = None  # of a file, when it was synced last
    names: dict[str, Node] = field(default_factory=dict)  # of a folder, as programs see them
    kept: dict[str, Node] = field(default_factory=dict)  # when it was synced last
    changes: list[tuple[str, str | None]] = field(default_factory=list)  # the names before and after; None: gone
    given: list[Node] = field(default_factory=list)  # what each change is about

    def change(self, before: str, after: str | None, node: Node) -> None:
        self.names.pop(before, None)
        if after is not None:
            self.names[after] = node
        self.changes.append((before, after))
        self.given.append(node)

    def sync(self, content: bytes | None) -> None:
        self.content = content
        self.kept, self.changes, self.given = dict(self.names), [], []

    def after(self, count: int) -> dict[str, Node]:
        """The names that a folder has if the disk has kept so many of the changes."""
        found = dict(self.kept)
        for (before, name), node in zip(self.changes[:count], self.given, strict=False):
            found.pop(before, None)
            if name is not None:
                found[name] = node
        return found


class Disk:
    """Does what a program has done, up to some moment, and tells what may be left if the power fails then."""

    def __init__(self, operations: list[Any]) -> None:
        self.root = Node(True)
        for what, *rest in operations:
            getattr(self, what)(*rest)

    def find(self, path: str) -> Node:
        node = self.root
        for part in Path(path).parts:
            node = node.names[part]
        return node

    def make(self, path: str, is_folder: bool) -> None:
        self.find(str(Path(path).parent)).change(Path(path).name, Path(path).name, Node(is_folder))

    def rename(self, before: str, after: str) -> None:
        assert Path(before).parent == Path(after).parent, "one folder, and so one change"
        self.find(str(Path(before).parent)).change(Path(before).name, Path(after).name, self.find(before))

    def remove(self, path: str) -> None:
        self.find(str(Path(path).parent)).change(Path(path).name, None, self.find(path))

    def sync(self, path: str, content: bytes | None) -> None:
        self.find(path).sync(content)

    def outcomes(self) -> Iterator[Any]:
        """All that may be left, each as nested dicts of names and contents."""
        folders = [node for node in self._all() if node.changes]
        # Of what was done within one folder, the extremes; of what was done to the checkpoints themselves, each step.
        few = [range(len(n.changes) + 1) if len(n.changes) < 5 else (0, len(n.changes)) for n in folders]
        for counts in itertools.product(*few):
            chosen = {id(node): count for node, count in zip(folders, counts, strict=True)}
            for share in (0, 2):
                yield self._left(self.root, chosen, share)

    def _all(self) -> list[Node]:
        found: dict[int, Node] = {}

        def visit(node: Node) -> None:
            if id(node) not in found:
                found[id(node)] = node
                for other in [*node.names.values(), *node.kept.values(), *node.given]:
                    visit(other)

        visit(self.root)
        return list(found.values())

    def _left(self, node: Node, chosen: dict[int, int], share: int) -> Any:
        if not node.is_folder:
            return node.content if node.content is not None else b"\0" * share
        names = node.after(chosen.get(id(node), 0))
        return {name: self._left(other, chosen, share) for name, other in sorted(names.items())}


def open_file(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


class Recorder:
    """Notes what this process does to files and folders in ``root`` while it is on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operations: list[Any] = []
        self.on = False
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:  # what is noted here is about to be done, if it can be
            return
        if event == "os.mkdir":
            path = self._path(arguments[0], arguments[2])
            self._note("make", path, True, can=path.parent.is_dir() and not path.exists())
        elif event == "os.rename":
            before, after = (self._path(path, at) for path, at in zip(arguments[:2], arguments[2:], strict=True))
            self._note("rename", before, after)
        elif event in ("os.remove", "os.rmdir"):
            path = self._path(*arguments)
            self._note("remove", path, can=path.exists())
        elif event == "open" and isinstance(arguments[1], str) and "x" in arguments[1]:
            self._note("make", self._path(arguments[0], -1), False)

    def _path(self, path: Any, at: int) -> Path:
        return open_file(at) / path if at != -1 else Path(path)

    def _note(self, what: str, *arguments: Any, can: bool = True) -> None:
        if can and all(isinstance(item, bool) or item.is_relative_to(self.root) for item in arguments):
            given = [item if isinstance(item, bool) else str(item.relative_to(self.root)) for item in arguments]
            self.operations.append((what, *given))

    def synced(self, descriptor: int) -> None:
        path = open_file(descriptor)
        if path.is_relative_to(self.root):
            content = None if stat.S_ISDIR(os.fstat(descriptor).st_mode) else path.read_bytes()
            self.operations.append(("sync", str(path.relative_to(self.root)), content))


def content(epoch: int, batch: int) -> Content:
    counts = {"world_size": 1, "metrics_bytes": 0, "train_step": 3 * epoch + batch, "val_step": 0, "val_batch": None}
    texts = dict.fromkeys(("dowdyboy", "backend", "backend_version", "python", "name", "precision"), "x")
    place = {"run": 1, "epoch": epoch, "batch": batch, "best": None, "best_epoch": None, "best_type": "min"}
    return Snapshot({**counts, **texts, **place}, {}, {"rng": [epoch], "records": {}, "scaler": {}}).content()


# Kind, number, and how far the run has come: epochs, and batches of the next one.
SAVES = [
    ("last_epoch", 1, (0, 1)),
    ("last_epoch", 1, (0, 2)),
    ("epoch", 1, (1, 0)),
    ("last_epoch", 1, (1, 0)),
    ("last_epoch", 2, (1, 1)),
]


def record(root: Path, syncs: Callable[[Path], bool] = lambda path: True) -> tuple[list[Any], list[int]]:
    """What saving some checkpoints does, and how much of it is done when each of them counts as saved."""
    recorder, fsync = Recorder(root), os.fsync
    folder = CheckpointFolder(root / "out" / "checkpoint", pytest.fail)
    done = []

    def synced(descriptor: int) -> None:
        if syncs(open_file(descriptor)):
            fsync(descriptor)
            recorder.synced(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        recorder.on = True
        _folders.make_folder(folder.path.parent)
        for kind, number, place in SAVES:
            assert folder.save(kind, number, content(*place))
            done.append(len(recorder.operations))
        recorder.on = False
    return recorder.operations, done


def write_out(left: Any, path: Path) -> None:
    if isinstance(left, bytes):
        path.write_bytes(left)
        return
    path.mkdir()
    for name, item in left.items():
        write_out(item, path / name)


def check(root: Path, operations: list[Any], done: list[int]) -> int:
    """Has the power fail at each moment, and the checkpoints be looked for; gives in how many ways.

    Raises:
        AssertionError: one that counted as saved is lost.
    """
    seen = set()
    for moment in range(len(operations) + 1):
        saved = sum(count <= moment for count in done)
        expected = [place for _, _, place in SAVES[max(0, saved - 1) : saved + 1]]
        for left in Disk(operations[:moment]).outcomes():
            if (repr(left), saved) in seen:
                continue
            seen.add((repr(left), saved))
            write_out(left, root / "left")
            folder = CheckpointFolder(root / "left" / "out" / "checkpoint", lambda text: None)
            folder.tidy()
            found = folder.newest()
            place = None if found is None else (found[1].index["epoch"], found[1].index["batch"])
            assert place in expected or (saved == 0 and place is None), (moment, operations[moment - 1], place)
            assert not list(folder.path.glob(".*"))
            assert sum(_files.is_whole(path) for path in folder.path.glob("last_epoch_*")) <= 1
            shutil.rmtree(root / "left")
    return len(seen)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    (tmp_path / "real").mkdir()
    return tmp_path / "real"


def test_what_counts_as_saved_is_never_lost(tmp_path: Path, real: Path) -> None:
    assert check(tmp_path, *record(real)) > 100


UNSYNCED: dict[str, Callable[[Path], bool]] = {
    "files": lambda path: path.is_dir(),
    "the folder": lambda path: not path.name.startswith(_folders.UNFINISHED),
    "its parent": lambda path: path.name != "checkpoint",
    "the parent's parent": lambda path: path.name != "out",
    "what out_dir is in": lambda path: path.name != "real",
}


@pytest.mark.parametrize("what", UNSYNCED)
def test_what_is_not_synced_is_noticed(tmp_path: Path, real: Path, what: str) -> None:
    with pytest.raises(AssertionError):
        check(tmp_path, *record(real, UNSYNCED[what]))


def replace_at_once(unfinished: Path, folder: Path) -> None:
    _folders.clear(folder)
    unfinished.rename(folder)
    _folders.sync_folder(folder.parent)
    _folders.sync_folder(folder.parent.parent)


def sync_at_the_end(unfinished: Path, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_folders, "sync_folder", lambda folder: None)
        _folders.put_in_place(unfinished, folder)
    _folders.sync_folder(folder.parent)
    _folders.sync_folder(folder.parent.parent)


def put_nothing_back(parent: Path, ours: Any, is_whole: Any) -> None:
    for path in [*parent.glob(".unfinished-*"), *parent.glob(".replaced-*")]:
        _folders.clear(path)


BREAKS: dict[str, tuple[Any, str, Any]] = {
    "the old one goes first": (_files, "put_in_place", replace_at_once),
    "the old one goes before the new one is synced": (_files, "put_in_place", sync_at_the_end),
    "nothing is put back": (_checkpoint, "tidy", put_nothing_back),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_another_order_is_noticed(tmp_path: Path, real: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setattr(*BREAKS[broken])
    with pytest.raises(AssertionError):
        check(tmp_path, *record(real))
