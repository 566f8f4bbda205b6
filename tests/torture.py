"""Kills a small but complete run again and again, and compares what is left with what an undisturbed one leaves.

    python tests/torture.py torch 200

kills 200 times and says how it went; ``paddle`` does it on the other framework, and a third argument is the seed. Each
life of the run is a process of its own, which is killed with SIGKILL: after a random time, or within a random operation
on a file of a checkpoint, a write of which only a part is done among them. Whenever the run has come to its end, it is
compared bit by bit with the undisturbed one, and begins anew.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from dowdyboy_conformance._inside import inside
from dowdyboy_conformance._resuming import assert_equal, go, outcome, start
from dowdyboy_conformance.harnesses.harness import Harness

WRITING = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
"""What Python tells of, right before it does it."""

BREAKS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "records": lambda: _break("_run.records", "Records", "load_state", lambda *_: None),
    "half": lambda: _break("_disk.files", None, "put_in_place", _write_in_place),
    "unsynced order": lambda: _break("_run.checkpoints", None, "write_folder", _remove_first),
}
"""Ways to spoil the library that the torture must notice."""


def _break(module: str, owner: str | None, name: str, replacement: Any) -> None:
    found: Any = inside(module)
    setattr(getattr(found, owner) if owner else found, name, replacement)


def _write_in_place(unfinished: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in sorted(unfinished.iterdir()):  # the index, checkpoint.json, comes first
        path.rename(folder / path.name)
    unfinished.rmdir()


def _remove_first(folder: Path, content: Any) -> None:
    write_folder = inside("_disk.files").write_folder
    for other in folder.parent.glob("*"):
        shutil.rmtree(other)
    write_folder(folder, content)


class HalfWritten:
    """A file that is opened for writing, of which every operation may be the last that the process does."""

    def __init__(self, file: Any, count: Callable[[], bool]) -> None:
        self._file = file
        self._count = count

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: Any) -> int:
        """Writes, or writes a part and dies."""
        if self._count():
            self._file.write(memoryview(content)[: len(content) // 2])
            _die()
        return int(self._file.write(content))


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead")


def arm_files(folder: Path, operations: int) -> None:
    """Has this process die within one of its next operations on files in ``folder``."""
    left, lock, home = [operations], threading.Lock(), os.getpid()

    def count() -> bool:
        with lock:
            left[0] -= 1
            return left[0] < 0 and os.getpid() == home

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in WRITING and str(arguments[0]).startswith(str(folder)) and count():
            _die()

    def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = real_open(path, mode, *rest, **named)
        return HalfWritten(file, count) if set(mode) & set("wxa") and path.is_relative_to(folder) else file

    def synced(descriptor: int) -> None:
        if count():
            _die()
        real_sync(descriptor)

    real_open, real_sync = Path.open, os.fsync
    Path.open, os.fsync = opened, synced  # type: ignore[method-assign, assignment]
    sys.addaudithook(audit)


def arm_clock(seconds: float) -> None:
    """Has this process die after a time."""
    timer = threading.Timer(seconds, _die)
    timer.daemon = True
    timer.start()


class Torture:
    """The run, its lives, and its deaths.

    Args:
        harness: the framework.
        folder: where everything is written.
        seed: of the moments of death.
        spoil: what to break in the library in each life.
    """

    def __init__(self, harness: Harness, folder: Path, seed: int, spoil: str = "") -> None:
        self._harness = harness
        self._folder = folder
        self._random = random.Random(seed)
        self._spoil = BREAKS[spoil]
        self.kills = {"clock": 0, "file": 0}
        self.runs = 0

    def live(self, name: str, arm: Callable[[], None] = lambda: None) -> int:
        """One life of the run in a process of its own; gives its exit status, negative for a signal."""
        process = os.fork()
        if process == 0:
            status = 1
            try:
                log = os.open(self._folder / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                arm()
                self._spoil()
                workers = 0 if name == "whole" else 2 * self._random.randrange(2)
                settings: dict[str, Any] = {"save_steps": 2, "resume": "auto", "log_with": "auto"}
                go(start(self._harness, self._folder / name, workers, **settings))
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def left(self, name: str) -> dict[str, Any]:
        """What the run has left: its files, and its curves as the framework's viewer reads them."""
        curves = self._harness.read_curves(self._folder / name / "log")
        return {**outcome(self._folder / name), "curves": repr(curves)}

    def kill(self, times: int) -> None:
        """Kills so often at least, up to the end of the run that is then under way."""
        began = time.monotonic()
        assert self.live("whole") == 0, (self._folder / "whole.txt").read_text()
        whole_time, expected = time.monotonic() - began, self.left("whole")
        while sum(self.kills.values()) < times:
            shutil.rmtree(self._folder / "killed", ignore_errors=True)
            while (status := self._life(whole_time)) != 0:
                assert status == -signal.SIGKILL, (self._folder / "killed.txt").read_text()[-5000:]
            assert_equal(self.left("killed"), expected)
            self.runs += 1

    def _life(self, whole_time: float) -> int:
        kind = self._random.choice(["clock", "file", "file"])
        if kind == "clock":
            seconds = self._random.uniform(0.0, whole_time)
            status = self.live("killed", lambda: arm_clock(seconds))
        else:
            operations = self._random.randrange(400)
            status = self.live("killed", lambda: arm_files(self._folder / "killed", operations))
        self._random.random()  # the next life of another kind of workers, which the child has drawn from here
        if status == -signal.SIGKILL:
            self.kills[kind] += 1
        return status


def harness_of(name: str) -> Harness:
    """The harness of a framework, with what its runs import, so that no life has to import it anew."""
    importlib.import_module({"torch": "torch.utils.tensorboard", "paddle": "visualdl"}[name])
    module = importlib.import_module(f"dowdyboy_conformance.harnesses.{name}")
    made: Harness = getattr(module, f"{name.capitalize()}Harness")()
    return made


def main(name: str, times: str = "200", seed: str = "0", spoil: str = "") -> None:
    """Tortures, and tells how it went."""
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(harness_of(name), Path(folder), int(seed), spoil)
        torture.kill(int(times))
    print(f"{torture.kills['clock']} kills by the clock, {torture.kills['file']} within an operation on a file;")
    print(f"{torture.runs} runs came to their end, each bitwise equal to the undisturbed one")


if __name__ == "__main__":
    main(*sys.argv[1:])
