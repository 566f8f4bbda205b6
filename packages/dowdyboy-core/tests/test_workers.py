"""Workers of loaders: none outlives the process that it works for, whenever that is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from dowdyboy_core._stopping import WorkerInit

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def work(folder: Path, orphan: bool) -> None:
    """A worker that would stay for ever; an orphan begins to work when its employer has been killed already."""
    employer = multiprocessing.parent_process()
    assert employer is not None
    (folder / "started").write_text(str(os.getpid()))
    while orphan and os.getppid() == employer.pid:
        time.sleep(0.01)
    WorkerInit(None)(0)
    (folder / "working").touch()
    while True:
        signal.pause()


def employ(folder: Path, orphan: bool) -> None:
    process = multiprocessing.get_context("fork").Process(target=work, args=(folder, orphan))
    process.start()
    wait_for(folder / ("started" if orphan else "working"))
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(path: Path) -> None:
    latest = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < latest, path
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie, which nobody may have waited for yet."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to tell a zombie from a process")
@pytest.mark.parametrize("orphan", [False, True], ids=["while it works", "while it starts"])
def test_a_worker_ends_when_its_employer_is_killed(tmp_path: Path, orphan: bool) -> None:
    employer = os.fork()
    if employer == 0:
        try:
            employ(tmp_path, orphan)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(employer, 0)[1]) == -signal.SIGKILL
    worker = int((tmp_path / "started").read_text())
    latest = time.monotonic() + 30
    try:
        while is_running(worker):
            assert time.monotonic() < latest, "the worker goes on for nobody"
            time.sleep(0.05)
    finally:
        if is_running(worker):
            os.kill(worker, signal.SIGKILL)
