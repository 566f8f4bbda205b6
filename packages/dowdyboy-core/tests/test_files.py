"""Folders on disk: whole or not at all, and every kind of damage noticed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dowdyboy_core import CheckpointError
from dowdyboy_core._disk import files as _files
from dowdyboy_core._disk.files import INDEX, FolderReader, is_whole, prepare, read_index, write_folder
from dowdyboy_core._disk.folders import tidy
from dowdyboy_core.backend.arrays import Array


def array(values: Any) -> Array:
    found = np.asarray(values, np.float32)
    return Array("F32", found.shape, found.reshape(-1).view(np.uint8))


def write(folder: Path, value: float = 1.0) -> None:
    weights = {"model_0": {"a.weight": array([[value, 2.0]]), "empty": array([])}}
    write_folder(folder, prepare({"epoch": 1}, weights, {"rng": {"n": (1, float("nan")), "state": array([value])}}))


def read(folder: Path) -> list[float]:
    reader = FolderReader(folder)
    reader.verify()
    tree = reader.tree("rng")
    assert tree["n"][0] == 1 and tree["n"][1] != tree["n"][1]
    stored = reader.weights("model_0")
    assert stored["empty"].shape == (0,)
    return [*np.frombuffer(stored["a.weight"].data, np.float32), *np.frombuffer(tree["state"].data, np.float32)]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "one")
    assert read(tmp_path / "one") == [1.0, 2.0, 1.0]


def test_the_library_reads_the_weights(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write(tmp_path / "one")
    np.testing.assert_array_equal(load_file(tmp_path / "one" / "model_0.safetensors")["a.weight"], [[1, 2]])


def test_a_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "_PIECE", 100)
    monkeypatch.setattr("dowdyboy_core._disk.memory._LARGE", 50)
    values = np.arange(200, dtype=np.float32)
    write_folder(tmp_path / "one", prepare({}, {"model_0": {"large": array(values), "small": array([7])}}, {}))
    reader = FolderReader(tmp_path / "one")
    reader.verify()
    found = reader.weights("model_0")
    assert np.frombuffer(found["large"].data, np.float32).tolist() == values.tolist()
    assert np.frombuffer(found["small"].data, np.float32).tolist() == [7]
    assert np.frombuffer(found["large"].data, np.uint8).ctypes.data % 4096 == 0


def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one")
    path, size = tmp_path / "one" / "rng.json", (tmp_path / "one" / "rng.json").stat().st_size
    monkeypatch.setattr(
        _files, "_regular_size", lambda path: path.stat().st_size + (7 if path.name == "rng.json" else 0)
    )
    reader = FolderReader(tmp_path / "one")
    reader.index["files"]["rng.json"]["bytes"] = size + 7
    with pytest.raises(CheckpointError, match=rf"{path}.* can't be read: it ends 7 bytes early\."):
        reader.tree("rng")


class SlowAtFirst:
    """A digest that takes its time with the first piece."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._begun = False

    def update(self, piece: Any) -> None:
        if not self._begun:
            self._begun = True
            time.sleep(0.02)
        self._digest.update(piece)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def test_the_pieces_of_a_file_are_hashed_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one")
    reader = FolderReader(tmp_path / "one")
    monkeypatch.setattr(_files, "_PIECE", 30)
    monkeypatch.setattr(_files, "hashlib", SimpleNamespace(sha256=SlowAtFirst))
    reader.verify()


def test_the_memory_that_is_read_into_is_this_process_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashing: Any
) -> None:
    monkeypatch.setattr("dowdyboy_core._disk.memory._LARGE", 1)
    write(tmp_path / "one")
    data = FolderReader(tmp_path / "one").weights("model_0")["a.weight"].data

    def overwrite() -> None:
        data[:] = bytes(len(data))

    assert crashing.in_a_process(overwrite) == 0
    assert np.frombuffer(data, np.float32).tolist() == [1.0, 2.0]


def test_files_are_synced_with_all_that_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[int, int] = {}

    def note(file: int) -> None:
        synced[os.fstat(file).st_ino] = os.fstat(file).st_size

    monkeypatch.setattr(os, "fsync", note)
    write(tmp_path / "one")
    assert (tmp_path / "one").stat().st_ino in synced
    for path in (tmp_path / "one").iterdir():
        assert synced[path.stat().st_ino] == path.stat().st_size


def test_what_goes_into_several_folders_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    describe = _files._describe
    monkeypatch.setattr(_files, "_describe", lambda pieces: hashed.append(1) or describe(pieces))
    content = prepare({}, {"model_0": {"w": array([1.0])}, "model_1": {"w": array([2.0])}}, {"rng": [3]})
    for name in ("one", "two"):
        write_folder(tmp_path / name, content)
        FolderReader(tmp_path / name).verify()
    assert len(hashed) == 3


def test_every_changed_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    write(folder)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in range(len(content)):
            for mask in (1, 32, 255):
                path.write_bytes(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
                with pytest.raises(CheckpointError):
                    FolderReader(folder).verify()
        for tenth in range(10):
            path.write_bytes(content[: len(content) * tenth // 10])
            with pytest.raises(CheckpointError):
                FolderReader(folder).verify()
        path.write_bytes(content)
    assert read(folder) == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"format": "dowdyboy-checkpoint"}',
        '{"format": "dowdyboy-checkpoint", "format_version": 3, "files": {}}',
        '{"format": "other", "format_version": 1, "files": {}}',
        "[" * 100_000,
        '{"format": "dowdyboy-checkpoint", "format_version": 1, "files": []}',
    ],
    ids=range(9),
)
def test_an_index_that_is_not_ours_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(CheckpointError):
        FolderReader(tmp_path)


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        FolderReader(folder).tree("rng")
    return str(caught.value)


def reseal(folder: Path, seal: Any = True, **changed: Any) -> None:
    """Writes the index anew with something else in it: sealed, or with ``seal`` for a digest."""
    index = {**read_index(folder), **changed, "sha256": _files._NO_DIGEST if seal is True else seal}
    content = json.dumps(index).encode()
    if seal is True:
        content = content.replace(_files._NO_DIGEST.encode(), hashlib.sha256(content).hexdigest().encode())
    (folder / INDEX).write_bytes(content)


@pytest.mark.parametrize("seal", ["", "XXXX", "0" * 64, "A" * 64, None, 5, ["0" * 64]])
def test_an_index_with_another_digest_is_refused(tmp_path: Path, seal: Any) -> None:
    write(tmp_path)
    reseal(tmp_path)
    FolderReader(tmp_path).verify()
    reseal(tmp_path, seal)
    assert refused(tmp_path) == (
        f"{str(tmp_path / INDEX)!r} doesn't match its own digest: it is damaged, or was changed by hand. Use another "
        "checkpoint."
    )


def test_an_index_of_a_later_version_says_what_to_read_it_with(tmp_path: Path) -> None:
    write(tmp_path)
    reseal(tmp_path, format_version=4, dowdyboy="9.1")
    assert refused(tmp_path) == (
        f"{str(tmp_path)!r} has format version 4; this dowdyboy reads 1, 2 and 3. Read it with the version that "
        "wrote it: '9.1'."
    )


def test_an_index_may_hold_what_looks_like_its_empty_digest(tmp_path: Path) -> None:
    name = _files._NO_DIGEST
    write_folder(tmp_path / "one", prepare({"name": name}, {}, {}))
    assert read_index(tmp_path / "one")["name"] == name


def test_an_index_may_have_so_many_bytes_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    size = (tmp_path / INDEX).stat().st_size
    monkeypatch.setattr(_files, "_MAX_INDEX_BYTES", size)
    FolderReader(tmp_path).verify()
    monkeypatch.setattr(_files, "_MAX_INDEX_BYTES", size - 1)
    assert refused(tmp_path) == (
        f"{str(tmp_path / INDEX)!r} can't be read: it has {size} bytes, and no index has more than {size - 1}. Use "
        "another checkpoint."
    )


def test_a_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "rng.safetensors"
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    assert refused(tmp_path) == (
        f"{str(path)!r} has {len(content) + 1} bytes instead of {len(content)}: it is damaged. Use another checkpoint."
    )
    path.write_bytes(b"\0" * len(content))
    assert refused(tmp_path).startswith(f"{str(path)!r} is no safetensors file: ")
    path.write_bytes(content[:-1] + b"x")
    assert refused(tmp_path) == f"{str(path)!r} doesn't match its digest: it is damaged. Use another checkpoint."
    path.unlink()
    assert refused(tmp_path).startswith(f"{str(path)!r} can't be read: ")


def test_a_folder_around_checkpoints_names_the_newest_of_them(tmp_path: Path) -> None:
    for age, name in enumerate(("epoch_9", "last_epoch_10", "epoch_10"), start=1):  # the newest first
        write(tmp_path / "checkpoint" / name)
        os.utime(tmp_path / "checkpoint" / name / INDEX, (10**9 - age, 10**9 - age))
    newest = repr(str(tmp_path / "checkpoint" / "epoch_9"))
    for folder in (tmp_path, tmp_path / "checkpoint"):
        assert refused(folder) == (
            f"{str(folder)!r} holds no {INDEX}. Give the folder of one checkpoint, such as {newest}."
        )
    assert refused(tmp_path / "nothing") == (
        f"{str(tmp_path / 'nothing')!r} is no folder. Give the folder of one checkpoint, such as "
        "out_dir/checkpoint/epoch_1."
    )


def test_a_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Give the folder of one checkpoint"):
        FolderReader(tmp_path / "nothing")


def test_what_can_not_be_stored_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "one")
    with pytest.raises(CheckpointError, match=r"^rng: the value at hooks/0 is a function"):
        write_folder(tmp_path / "one", prepare({}, {}, {"rng": {"hooks": [lambda: 1]}}))
    assert read(tmp_path / "one") == [1.0, 2.0, 1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


DYING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_files
left = int(sys.argv[2])
def count(event, args):
    # Python tells of each of these before it does it: the process dies between two of them.
    global left
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        if event == "open" and not str(args[0]).startswith(sys.argv[1]):
            return
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
test_files.write(Path(sys.argv[1]) / "one", 5.0)
"""


def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    code = DYING.format(tests=str(Path(__file__).parent))
    seen = set()
    for moment in range(40):
        parent = tmp_path / str(moment)
        write(parent / "one")
        done = subprocess.run([sys.executable, "-c", code, str(parent), str(moment)], check=False)
        tidy(parent, lambda name: name == "one", is_whole)
        values = read(parent / "one")
        assert values in ([1.0, 2.0, 1.0], [5.0, 2.0, 5.0])
        assert [path.name for path in parent.iterdir()] == ["one"]
        seen.add((done.returncode, values[0]))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert seen == {(-signal.SIGKILL, 1.0), (-signal.SIGKILL, 5.0), (0, 5.0)}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "one", 3.0)
    monkeypatch.undo()
    assert read(tmp_path / "one") == [1.0, 2.0, 1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_name_in_the_index_can_not_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("1")
    folder = tmp_path / "one"
    write(folder)
    index = json.loads((folder / INDEX).read_text())
    index["files"]["../secret.json"] = {"bytes": 1, "sha256": "0"}
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="file name"):
        FolderReader(folder)
