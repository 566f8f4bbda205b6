"""A folder is locked for one run, by what goes with its process, and where there are no locks that is told."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core._disk import lock as _lock
from dowdyboy_core._disk.lock import LOCK, RunLock

pytest.importorskip("fcntl")  # without which there is no lock to test

OTHER = """
import os, sys
from pathlib import Path
from dowdyboy_core._disk.lock import RunLock
assert RunLock(Path(sys.argv[1]), print).take() == ""
if sys.argv[2] == "with a child" and os.fork() == 0:
    os.read(int(sys.argv[3]), 1)  # a worker that outlives it, and has its descriptors
    os._exit(0)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lock, "PATIENCE", 0.0)


@contextmanager
def other(folder: Path, kind: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """A process that has locked a folder; it ends, as a child of it does, with the context at the latest."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", OTHER, str(folder), kind, str(reading)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[reading]
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()
            os.close(reading)
            os.close(writing)


def test_another_process_keeps_it_until_it_is_gone(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, pytest.fail)
    with other(tmp_path) as process:
        text = lock.take()
        assert f"is in use: process {process.pid} on " in text and "(begun at 20" in text
        (tmp_path / LOCK).write_text("no JSON")
        assert "is in use: another process trains in it" in lock.take()
        with lock.moment() as alone:
            assert not alone
    assert (tmp_path / LOCK).exists()
    assert lock.take() == ""
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_outlives_its_run_does_not_keep_it(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, pytest.fail)
    with other(tmp_path, "with a child") as process:
        assert lock.take() != ""
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock.take() == ""
        lock.release()


def test_in_one_process_it_is_had_by_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    first, second = RunLock(tmp_path, pytest.fail), RunLock(tmp_path / "link", pytest.fail)
    for one, two in ((first, second), (second, first)):
        assert one.take() == ""
        assert "is in use: another trainer of this very process (begun at 20" in two.take()
        with one.moment() as mine, two.moment() as its:
            assert (mine, its) == (True, False)
        two.release()  # which has nothing
        assert two.take() != ""
        one.release()
    with first.moment() as alone:
        assert alone and second.take() != ""
    assert second.take() == ""
    second.release()


def test_a_child_neither_has_it_nor_gives_it_free(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, pytest.fail)
    assert lock.take() == ""
    process = os.fork()
    if process == 0:
        lock.release()
        os._exit(0 if "is in use: process" in RunLock(tmp_path, print).take() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert (tmp_path / LOCK).exists()
    lock.release()


def test_one_that_is_ending_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lock, "PATIENCE", 30.0)
    with other(tmp_path) as process:
        timer = threading.Timer(0.2, process.kill)
        timer.start()
        lock = RunLock(tmp_path, pytest.fail)
        assert lock.take() == ""
        timer.join()
        lock.release()


def test_a_file_that_its_owner_removes_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, real, left = RunLock(tmp_path, pytest.fail), os.open, [1]

    def opened(path: Any, *rest: Any) -> int:
        descriptor = real(path, *rest)
        if left:  # an owner that removes it right then
            left.pop()
            (tmp_path / LOCK).unlink()
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    assert lock.take() == ""
    monkeypatch.undo()
    monkeypatch.setattr(_lock, "PATIENCE", 0.0)
    code = "import sys; from pathlib import Path; from dowdyboy_core._disk import lock; lock.PATIENCE = 0.0\n"
    code += "print(lock.RunLock(Path(sys.argv[1]), print).take())"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "is in use" in done.stdout
    lock.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_where_a_disk_has_no_locks_that_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.lockf", refuse)
    check_told(tmp_path, f"[Errno {number}] {os.strerror(number)}")


def test_where_a_system_has_no_locks_that_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lock, "fcntl", None)
    check_told(tmp_path, "this system has no locks of that kind")


def test_where_no_file_can_be_made_that_is_told_once(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    check_told(tmp_path, f"[Errno 21] Is a directory: {str(tmp_path / LOCK)!r}")


def check_told(folder: Path, cause: str) -> None:
    said: list[str] = []
    lock = RunLock(folder, said.append)
    for _ in range(2):
        assert lock.take() == ""
        assert "another trainer of this very process" in RunLock(folder, pytest.fail).take()
        lock.release()
    assert said == [
        f"{str(folder)!r} can't be locked: {cause}. The run goes on, but a second one in this out_dir would not be "
        "noticed: see to it that there is none."
    ]
