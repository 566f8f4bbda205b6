"""Workers of loaders: none outlives the process that it works for, or ends for a signal that was meant for all."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dowdyboy_core.backend import worker_signals as _worker_signals
from dowdyboy_core.backend.signals import handled
from dowdyboy_core.backend.worker_signals import WorkerInit

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


EMPLOYER, ABOVE, STRANGER = 20, 10, 30
"""Numbers of processes: whom the worker works for, what has forked it, and somebody who signals."""


class Ended(BaseException):
    """Instead of the end of the process."""


class Around:
    """What a worker sees of the system while it waits, moment by moment.

    Attributes:
        moments: what happens while the worker waits: who sends SIGTERM, or what else there is to be done.
        waited: for how many seconds it waited each time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *moments: int | Callable[[Around], None] | None) -> None:
        self.moments = list(moments)
        self.waited: list[float] = []
        self.parent = ABOVE
        self.there = {EMPLOYER, ABOVE}
        monkeypatch.setattr(os, "getppid", lambda: self.parent)
        monkeypatch.setattr(os, "kill", self.kill)
        monkeypatch.setattr(os, "_exit", self.exit)
        monkeypatch.setattr(time, "sleep", self.wait)
        monkeypatch.setattr(signal, "sigtimedwait", self.sigtimedwait, raising=False)

    def kill(self, pid: int, signum: int) -> None:
        assert signum == 0, "it only asks whether the process is there"
        if pid not in self.there:
            raise ProcessLookupError

    def exit(self, status: int) -> None:
        raise Ended(status)

    def wait(self, seconds: float) -> int | None:
        self.waited.append(seconds)
        moment = self.moments.pop(0)
        if callable(moment):
            moment(self)
            return None
        return moment

    def sigtimedwait(self, signals: set[int], seconds: float) -> Any:
        assert signals == {signal.SIGTERM}
        sender = self.wait(seconds)
        return None if sender is None else SimpleNamespace(si_pid=sender)

    def employer_ends(self) -> None:
        self.there.remove(EMPLOYER)

    def is_orphaned(self) -> None:
        self.parent = 1


@pytest.mark.parametrize("tells_sender", [True, False], ids=["knows who signals", "does not know who signals"])
@pytest.mark.parametrize("last", [Around.employer_ends, Around.is_orphaned], ids=["employer ends", "is orphaned"])
def test_a_worker_looks_every_second_whether_it_is_still_needed(
    monkeypatch: pytest.MonkeyPatch, tells_sender: bool, last: Callable[[Around], None]
) -> None:
    monkeypatch.setattr(_worker_signals, "_TELLS_SENDER", tells_sender)
    around = Around(monkeypatch, None, None, last)
    with pytest.raises(Ended) as caught:
        _worker_signals._serve(EMPLOYER)
    assert caught.value.args == (1,)
    assert around.waited == [1.0, 1.0, 1.0]


def test_a_worker_heeds_sigterm_of_its_employer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_worker_signals, "_TELLS_SENDER", True)
    around = Around(monkeypatch, STRANGER, None, ABOVE, EMPLOYER)
    with pytest.raises(Ended) as caught:
        _worker_signals._serve(EMPLOYER)
    assert caught.value.args == (0,)
    assert around.moments == []


def test_an_employer_of_another_user_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signum: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert _worker_signals._exists(EMPLOYER) is True


@pytest.fixture
def as_before() -> Iterator[None]:
    """Puts back what a worker changes in its process."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.mark.parametrize("tells_sender", [True, False], ids=["knows who signals", "does not know who signals"])
@pytest.mark.parametrize(
    ("parent", "employer"),
    [(SimpleNamespace(pid=EMPLOYER), EMPLOYER), (SimpleNamespace(pid=None), ABOVE), (None, ABOVE)],
    ids=["of multiprocessing", "not started", "of something else"],
)
def test_a_worker_is_deaf_to_signals_and_watches_its_employer_beside_its_work(
    monkeypatch: pytest.MonkeyPatch, as_before: None, tells_sender: bool, parent: Any, employer: int
) -> None:
    watching: queue.Queue[tuple[int, bool]] = queue.Queue()
    begun: list[int] = []
    monkeypatch.setattr(_worker_signals, "_TELLS_SENDER", tells_sender)
    monkeypatch.setenv("DOWDYBOY_STOP_SIGNALS", "USR1")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    monkeypatch.setattr(os, "getppid", lambda: ABOVE)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(_worker_signals, "_serve", lambda pid: watching.put((pid, threading.current_thread().daemon)))
    with handled([signal.SIGUSR1], lambda *given: None):  # as in a worker that was forked from a run
        WorkerInit(begun.append)(7)
        WorkerInit(None)(8)
        assert begun == [7]
        for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            assert signal.getsignal(signum) == signal.SIG_IGN
    assert (signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])) == tells_sender
    assert [watching.get(timeout=10) for _ in range(2)] == [(employer, True)] * 2
