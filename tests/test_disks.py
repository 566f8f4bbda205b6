"""Real disks that are full, read-only or gone for a while: training goes on, and what could be saved is whole.

Each disk is a small file system in memory, mounted for one test, which needs the rights to do so.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance._problem import Run
from dowdyboy_conformance._resuming import assert_equal, go, outcome, start
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError, ConfigError

_checkpoints, _curves = inside("_run.checkpoints"), inside("_run.curves")
_files, _lines = inside("_disk.files"), inside("_disk.lines")
_saver = inside("_run.saver")

Hook = Callable[[], Any]


class Disk:
    """A disk of 4 MiB that is mounted at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def mount(self) -> None:
        """Mounts it.

        Raises:
            OSError: there is no ``mount``.
            subprocess.CalledProcessError: it is not allowed; ``stderr`` says why.
        """
        self.path.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(self.path))

    def unmount(self) -> None:
        while os.path.ismount(self.path):
            run("umount", str(self.path))

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert "No space left" in str(error)

    def make_room(self) -> None:
        self._filler.unlink()

    def forbid_writing(self) -> None:
        run("mount", "-o", "remount,ro", str(self.path))

    def allow_writing(self) -> None:
        run("mount", "-o", "remount,rw", str(self.path))

    def vanish(self) -> None:
        """Hides it behind an empty disk on which nothing can be made."""
        run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(self.path))

    def come_back(self) -> None:
        run("umount", str(self.path))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    """Mounts a disk at a path in ``tmp_path``."""
    mounted: list[Disk] = []

    def mount_at(path: str) -> Disk:
        disk = Disk(tmp_path / path)
        try:
            disk.mount()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no disk can be mounted here: {getattr(error, 'stderr', None) or error}")
        mounted.append(disk)
        return disk

    yield mount_at
    for disk in mounted:
        disk.unmount()


@pytest.fixture(params=["torch", "paddle"])
def harness(request: pytest.FixtureRequest) -> Harness:
    module = importlib.import_module(f"dowdyboy_conformance.harnesses.{request.param}")
    made: Harness = getattr(module, f"{request.param.capitalize()}Harness")()
    return made


TROUBLES: dict[str, tuple[Callable[[Disk], None], Callable[[Disk], None], str]] = {
    "full": (Disk.fill, Disk.make_room, "No space left on device"),
    "read-only": (Disk.forbid_writing, Disk.allow_writing, "Read-only file system"),
    "vanished": (Disk.vanish, Disk.come_back, "Read-only file system"),
}


def fit(run: Run, hooks: dict[int, Hook]) -> None:
    """Fits the run of ``_resuming``, with hooks of the test at the ends of epochs, before these are saved."""
    plain = run.trainer.fit

    def fitted(step: Any, val_step: Any, end: Any) -> None:
        def at_end(trainer: Any, ep: int) -> None:
            end(trainer, ep)
            trainer.wait_for_checkpoint()
            if ep in hooks:
                hooks[ep]()

        plain(step, val_step, at_end)

    run.trainer.fit = fitted  # type: ignore[method-assign, assignment]
    go(run)


def warnings_of(out_dir: Path) -> list[str]:
    lines = (out_dir / "default_run.log").read_text().splitlines()
    return [line.partition("[WARNING] ")[2] for line in lines if "[WARNING]" in line]


def saved(out_dir: Path) -> list[str]:
    """The checkpoints that are there, all of which must be whole."""
    found = sorted(path.name for path in (out_dir / "checkpoint").iterdir() if path.is_dir())
    assert all(_files.is_whole(out_dir / "checkpoint" / name) for name in found), found
    return found


def check_one_that_comes_back(harness: Harness, tmp_path: Path, disk: Disk, trouble: str) -> None:
    """A disk of checkpoints that is in trouble when the epochs 2 and 3 of 5 are saved.

    Raises:
        AssertionError: something was lost, told twice or not tried again.
    """
    begin, end, cause = TROUBLES[trouble]
    out_dir = tmp_path / "run"
    seen: dict[str, list[str]] = {}

    def break_down() -> None:
        seen["before"] = saved(out_dir)
        begin(disk)

    def mend() -> None:
        if trouble != "vanished":
            assert saved(out_dir) == seen["before"]
        end(disk)
        assert saved(out_dir) == seen["before"]

    fit(start(harness, out_dir, epoch=5), {2: break_down, 4: mend})
    assert seen["before"] == ["best_epoch_1", "epoch_1", "last_epoch_1"]
    told = warnings_of(out_dir)
    kinds = [f"{kind}_{ep}" for ep in (2, 3) for kind in ("epoch", "last_epoch", "best_epoch")]
    assert len(told) == len(kinds)
    for kind, text in zip(kinds, told, strict=True):
        assert text.startswith(f"Checkpoint {str(out_dir / 'checkpoint' / kind)!r} could not be saved: ")
        assert cause in text and text.endswith("Training goes on without it.")
    go(start(harness, tmp_path / "whole", epoch=5))
    found, expected = outcome(out_dir, 5), outcome(tmp_path / "whole", 5)
    lost = [name for name in expected["folders"] if name in kinds]
    assert found.pop("folders") == [name for name in expected.pop("folders") if name not in lost]
    assert_equal(found, {name: item for name, item in expected.items() if name.partition("/")[0] not in lost})


@pytest.mark.parametrize("trouble", TROUBLES)
def test_training_goes_on_and_saves_again(
    harness: Harness, tmp_path: Path, mount: Callable[[str], Disk], trouble: str
) -> None:
    check_one_that_comes_back(harness, tmp_path, mount("run/checkpoint"), trouble)


def check_one_that_stays_away(harness: Harness, tmp_path: Path, disk: Disk, trouble: str) -> None:
    """A disk of checkpoints that is in trouble from the end of epoch 2 of 3 on.

    Raises:
        AssertionError: the run ended before its end, or without an error, or can't be taken up.
    """
    begin, end, _ = TROUBLES[trouble]
    out_dir, ended = tmp_path / "run", []
    with pytest.raises(CheckpointError) as caught:
        fit(start(harness, out_dir), {2: lambda: begin(disk), 3: lambda: ended.append(3)})
    names = "best_epoch_3, epoch_3, last_epoch_3"
    assert f"the last save of {names} in {str(out_dir / 'checkpoint')!r} failed" in str(caught.value)
    assert ended == [3]
    go(start(harness, tmp_path / "whole"))
    assert (out_dir / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert "epoch 3 is the best so far" in (out_dir / "default_run.log").read_text()
    end(disk)
    assert saved(out_dir) == ["best_epoch_1", "epoch_1", "last_epoch_1"]
    resumed = start(harness, out_dir, resume="auto")
    go(resumed)
    assert len(resumed.losses) == 6
    assert_equal(outcome(out_dir), outcome(tmp_path / "whole"))


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_last_save_that_fails_is_an_error_when_all_else_is_done(
    harness: Harness, tmp_path: Path, mount: Callable[[str], Disk], trouble: str
) -> None:
    check_one_that_stays_away(harness, tmp_path, mount("run/checkpoint"), trouble)


def check_logs(harness: Harness, tmp_path: Path, disk: Disk) -> None:
    """A disk with everything on it that is full from the end of epoch 1 to that of epoch 3, of 4.

    Raises:
        AssertionError: a line was lost, or the run ended.
    """
    out_dir, runs = tmp_path / "run", {}
    long = "x" * 3000  # two lines of it don't fit into what is left of a block that is in use already
    for name, hooks in (("whole", {}), ("run", {1: disk.fill, 3: disk.make_room})):
        run = runs[name] = start(harness, tmp_path / name, epoch=4, log_with="auto")
        step = run.train_step

        def logging_step(trainer: Any, *arguments: Any, step: Any = step) -> Any:
            trainer.log({long: 1.0}, arguments[-1])
            trainer.print(f"step {arguments[-1]} {long}")
            trainer._metrics._flush()  # as it does by itself in steps that take longer than a second
            return step(trainer, *arguments)

        run.train_step = logging_step  # type: ignore[method-assign, assignment]
        fit(run, hooks)
    assert (out_dir / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    printed = (out_dir / "default_run.log").read_text()
    assert [printed.count(f"step {step} x") for step in range(12)] == [1] * 12
    told = warnings_of(out_dir)
    for text in (f"{str(out_dir / 'metrics.jsonl')!r} can't be written: ", "The viewer's files in "):
        assert sum(line.startswith(text) and "No space left on device" in line for line in told) == 1
    assert saved(out_dir) == [name for name in saved(tmp_path / "whole") if name not in ("epoch_1", "epoch_2")]
    go(start(harness, out_dir, epoch=4, log_with="auto", resume="auto"))  # which draws the curves anew
    assert harness.read_curves(out_dir / "log") == harness.read_curves(tmp_path / "whole" / "log")


# TensorBoard's thread ends with the error that it also hands on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_logs_wait_for_room(
    harness: Harness, tmp_path: Path, mount: Callable[[str], Disk], capfd: pytest.CaptureFixture[str]
) -> None:
    check_logs(harness, tmp_path, mount("run"))
    assert capfd.readouterr().out.count("default_run.log' can't be written: [Errno 28] No space left on device") == 1


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_run_begins_on_a_disk_that_is_in_trouble(
    harness: Harness, tmp_path: Path, mount: Callable[[str], Disk], trouble: str
) -> None:
    disk, out_dir = mount("run/checkpoint"), tmp_path / "run"
    begin, end, cause = TROUBLES[trouble]
    go(start(harness, out_dir), kill_at=7)
    checkpoints = out_dir / "checkpoint"
    (checkpoints / "last_epoch_2").rename(checkpoints / ".replaced-last_epoch_2")  # by a kill
    (checkpoints / "epoch_2" / "rng.json").unlink()
    begin(disk)
    run = start(harness, out_dir, resume="auto")
    with pytest.raises(CheckpointError, match="the last save of best_epoch_3, epoch_3, last_epoch_3 "):
        go(run)
    assert len(run.losses) == 3, "it goes on from what can be read: of the whole ones, the newest"
    told = warnings_of(out_dir)
    assert sum("can't be tidied" in text for text in told) == (trouble == "read-only")
    assert sum("could not be saved" in text and cause in text for text in told) >= 3
    end(disk)
    go(start(harness, out_dir, resume="auto"))
    go(start(harness, tmp_path / "whole"))
    assert_equal(outcome(out_dir), outcome(tmp_path / "whole"))


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_out_dir_that_can_not_be_used_is_refused(
    harness: Harness, tmp_path: Path, mount: Callable[[str], Disk], trouble: str
) -> None:
    disk = mount("disk")
    TROUBLES[trouble][0](disk)
    if trouble == "full":  # which has room for a folder, and for nothing in it
        run = start(harness, tmp_path / "disk" / "run")
        with pytest.raises(CheckpointError, match="Training is over"):
            go(run)
        assert len(run.losses) == 9
    else:
        with pytest.raises(ConfigError, match=r"can't be made: .*Read-only file system.* Give a folder that can be"):
            start(harness, tmp_path / "disk" / "run")


@pytest.mark.parametrize("in_time", [True, False])
def test_a_stopped_run_tells_whether_it_is_saved(
    harness: Harness, tmp_path: Path, mount: Callable[[str], Disk], in_time: bool
) -> None:
    """Epoch 2 can't be saved, and in epoch 3 a signal comes; by then there may be room again."""
    disk, out_dir = mount("run/checkpoint"), tmp_path / "run"
    run = start(harness, out_dir)
    step = run.train_step

    def signalled(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step == 7:
            trainer.wait_for_checkpoint()
            if in_time:
                disk.make_room()
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, bat, bat_idx, global_step)

    run.train_step = signalled  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as caught:
        fit(run, {2: disk.fill})
    assert caught.value.code == 143
    assert ("and this point is NOT saved" in (out_dir / "default_run.log").read_text()) is not in_time
    last = "last_epoch_3" if in_time else "last_epoch_1"
    assert saved(out_dir) == ["best_epoch_1", "epoch_1", last]
    if not in_time:
        disk.make_room()
    resumed = start(harness, out_dir, resume="auto")
    go(resumed)
    assert len(resumed.losses) == (1 if in_time else 6)
    go(start(harness, tmp_path / "whole"))
    assert (out_dir / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def save_or_end(self: Any, kind: str, epoch: int, content: Any) -> bool:
    _files.write_folder(self.path / f"{kind}_{epoch}", content)
    return True


def save_in_silence(self: Any, kind: str, epoch: int, content: Any) -> bool:
    with suppress(OSError):
        return save_or_end(self, kind, epoch, content)
    return False


def save_until_it_fails(self: Any, kind: str, epoch: int, content: Any) -> bool:
    failed = getattr(self, "failed", False) or not SAVE(self, kind, epoch, content)
    self.failed = failed
    return not failed


def remove_first(folder: Path, content: Any) -> None:
    kind = folder.name.rpartition("_")[0]
    for other in folder.parent.glob(f"{kind}_*") if kind != "epoch" else ():
        shutil.rmtree(other)
    _files.write_folder(folder, content)


def forget_lines(self: Any) -> None:
    FLUSH(self)
    self._pending.clear()


def leave_half(file: Any, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def draw_or_end(self: Any, points: Any) -> None:
    if self._tracker is not None and points:
        self._tracker.write(points)


SAVE, FLUSH = _checkpoints.CheckpointFolder.save, _lines.LineFile.flush

BREAKS: dict[str, tuple[Callable[..., None], Any, str, Any]] = {
    "an error ends the run": (check_one_that_comes_back, _checkpoints.CheckpointFolder, "save", save_or_end),
    "nothing is told": (check_one_that_comes_back, _checkpoints.CheckpointFolder, "save", save_in_silence),
    "nothing is tried again": (check_one_that_comes_back, _checkpoints.CheckpointFolder, "save", save_until_it_fails),
    "the old ones go first": (check_one_that_comes_back, _checkpoints, "write_folder", remove_first),
    "half a checkpoint stays": (check_one_that_comes_back, _files, "clear", lambda path: None),
    "the end is no error": (check_one_that_stays_away, _saver.Saver, "check", lambda self: None),
    "the error comes at once": (check_one_that_stays_away, _checkpoints.CheckpointFolder, "save", save_or_end),
    "lines are forgotten": (check_logs, _lines.LineFile, "flush", forget_lines),
    "half a line stays": (check_logs, _lines, "append_whole", leave_half),
    "a viewer ends the run": (check_logs, _curves.Curves, "draw", draw_or_end),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("harness", ["torch"], indirect=True)
def test_a_broken_library_is_noticed(
    harness: Harness, tmp_path: Path, mount: Callable[[str], Disk], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    check, *change = BREAKS[broken]
    disk = mount("run" if check is check_logs else "run/checkpoint")
    trouble = [] if check is check_logs else ["full"]
    monkeypatch.setattr(*change)
    with pytest.raises((AssertionError, OSError, CheckpointError, pytest.fail.Exception)):
        check(harness, tmp_path, disk, *trouble)
