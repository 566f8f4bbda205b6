"""Processes of one job that end, and are ended, together."""

from __future__ import annotations

import multiprocessing
import signal
from typing import Any

import pytest

from dowdyboy_core import _together
from dowdyboy_core._together import wait_for_spawned

CONTEXT = multiprocessing.get_context("spawn")


# Run by the built-in exec, since a process that starts afresh can import no module of the tests.
SUCCESSFUL = "ready.set()"
FAILING = "ready.wait(); raise SystemExit(3)"
# Does not end when told to, as one that waits in a collective or hangs in a handler.
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); ready.set(); signal.pause()"


class Started:
    """What ``spawn`` of a framework gives, as far as it counts here."""

    def __init__(self, *programs: str) -> None:
        self.ready = CONTEXT.Event()
        self.processes = [CONTEXT.Process(target=exec, args=(program, {"ready": self.ready})) for program in programs]
        for process in self.processes:
            process.start()
        self.sentinels: dict[Any, int] = {process.sentinel: i for i, process in enumerate(self.processes)}
        self.ready.wait()

    def join(self) -> bool:
        _, index = self.sentinels.popitem()
        if status := self.processes[index].exitcode:
            raise ChildProcessError(index, status)
        return not self.sentinels


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_together, "_GRACE", 0.2)


def test_processes_that_succeed_are_waited_for() -> None:
    started = Started(SUCCESSFUL, SUCCESSFUL)
    wait_for_spawned(started)
    assert [process.exitcode for process in started.processes] == [0, 0]


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_to_fail_is_reported_and_ends_those_that_would_not(order: int) -> None:
    started = Started(*[FAILING, STUBBORN][::order])
    failed = [0, 1][::order][0]
    with pytest.raises(ChildProcessError) as caught:
        wait_for_spawned(started)
    assert caught.value.args == (failed, 3)
    assert started.processes[1 - failed].exitcode == -signal.SIGKILL


def test_an_exception_while_waiting_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(STUBBORN, STUBBORN)

    def interrupted(sentinels: Any, timeout: float | None) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(_together, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wait_for_spawned(started)
    assert {process.exitcode for process in started.processes} <= {-signal.SIGTERM, -signal.SIGKILL}
