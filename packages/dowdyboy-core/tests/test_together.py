"""Processes of one job that end, and are ended, together."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from dowdyboy_core import SetupError, _together
from dowdyboy_core._stopping import Stopped
from dowdyboy_core._together import apart_on_error, end_together, in_step, meet, run_spawned, wait_for_spawned

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


class Simulated:
    """A process of a job that runs in no process; it is its own sentinel.

    Args:
        job: what it belongs to.
        stubborn: it does not end when told to.
        on_sigterm: its status when it was told to end.
    """

    def __init__(self, job: Job, *, stubborn: bool = False, on_sigterm: int = -signal.SIGTERM) -> None:
        self.job, self.stubborn, self.on_sigterm = job, stubborn, on_sigterm
        self.exitcode: int | None = None
        self.sentinel = self

    def is_alive(self) -> bool:
        return self.exitcode is None

    def end(self, status: int) -> None:
        assert self.exitcode is None
        self.exitcode = status

    def terminate(self) -> None:
        self.job.note("terminate", self)
        if not self.stubborn:
            self.end(self.on_sigterm)

    def kill(self) -> None:
        self.job.note("kill", self)
        self.end(-signal.SIGKILL)

    def join(self, timeout: float | None = None) -> None:
        if self.is_alive():
            assert timeout is not None, "it would be waited for for ever"
            self.job.note("join", self, timeout)
            self.job.now += timeout


class Job:
    """What ``spawn`` gives for simulated processes.

    Attributes:
        now: the time.
        done: what was done to which process; and for whom it was waited how long.
        moments: what happens while the job is waited for, one after another; each gives who has ended then.
        joined: whom ``join`` has waited for.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **processes: dict[str, Any]) -> None:
        self.now = 0.0
        self.done: list[tuple[Any, ...]] = []
        self.moments: list[Callable[[], list[Simulated]]] = []
        self.joined: list[int] = []
        self.processes = [Simulated(self, **settings) for settings in processes.values()]
        self.names = list(processes)
        self.sentinels: dict[Any, int] = {process: index for index, process in enumerate(self.processes)}
        monkeypatch.setattr(_together, "_wait", self.wait)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def note(self, what: str, process: Simulated, *more: Any) -> None:
        self.done.append((what, self.names[self.processes.index(process)], *more))

    def wait(self, sentinels: list[Simulated], timeout: float | None) -> list[Simulated]:
        names = [self.names[self.processes.index(sentinel)] for sentinel in sentinels]
        self.done.append(("wait", names, timeout))
        return self.moments.pop(0)()

    def join(self) -> bool:
        process = next(iter(self.sentinels))
        self.joined.append(self.sentinels.pop(process))
        if process.exitcode:
            raise ChildProcessError(self.joined[-1], process.exitcode)
        return not self.sentinels

    def end(self, **statuses: int) -> Callable[[], list[Simulated]]:
        """A moment at which processes end."""

        def moment() -> list[Simulated]:
            ending = [self.processes[self.names.index(name)] for name in statuses]
            for process, status in zip(ending, statuses.values(), strict=True):
                process.end(status)
            return ending

        return moment


def test_every_process_that_succeeds_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, a={}, b={}, c={})
    job.moments = [job.end(b=0), job.end(c=0, a=0)]
    wait_for_spawned(job)
    assert job.done == [("wait", ["a", "b", "c"], None), ("wait", ["a", "c"], None)]
    assert job.joined == [0, 1, 2]


def test_others_share_the_time_that_they_get_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, a={"stubborn": True}, b={}, c={"stubborn": True}, d={})
    job.moments = [job.end(b=3)]
    with pytest.raises(ChildProcessError) as caught:
        wait_for_spawned(job)
    assert caught.value.args == (1, 3)
    assert job.done == [
        ("wait", ["a", "b", "c", "d"], None),
        ("terminate", "a"),
        ("terminate", "c"),
        ("terminate", "d"),
        ("join", "a", 0.2),
        ("kill", "a"),
        ("join", "c", 0.0),
        ("kill", "c"),
    ]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_a_signal_has_stopped_stands_for_all(monkeypatch: pytest.MonkeyPatch, signum: int) -> None:
    job = Job(monkeypatch, a={}, b={}, c={})
    job.moments = [job.end(b=128 + signum), job.end(a=128 + signum)]
    with pytest.raises(Stopped) as caught:
        wait_for_spawned(job)
    assert caught.value.code == 128 + signum
    assert job.done == [("wait", ["a", "b", "c"], None), ("wait", ["a", "c"], 0.2), ("terminate", "c")]


def test_a_signal_that_comes_here_is_passed_on_and_all_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = Job(monkeypatch, a={"on_sigterm": 143}, b={}, c={"stubborn": True})

    def signalled() -> list[Simulated]:
        signal.raise_signal(signal.SIGTERM)
        return [job.processes[0]]

    job.moments = [job.end(b=0), signalled, job.end(c=0)]
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(Stopped) as caught:
            wait_for_spawned(job)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 128 + signal.SIGTERM
    assert job.done == [
        ("wait", ["a", "b", "c"], None),
        ("wait", ["a", "c"], None),
        ("terminate", "a"),
        ("terminate", "c"),
        ("wait", ["c"], None),
    ]
    assert "SIGTERM: stopping" in capfd.readouterr().err


def test_it_is_waited_for_as_long_as_was_asked() -> None:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    with receiving, sending:
        assert _together._wait([receiving], 0.01) == []
        sending.send("now")
        assert _together._wait([receiving], None) == [receiving]


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begins as a program does."""
    monkeypatch.setattr(_together, "_apart", False)
    monkeypatch.delattr(sys, "last_value", raising=False)


def comes_to_the_end() -> list[str]:
    """Has this process end together with others, and gives where it has told them that it is."""
    told: list[str] = []

    def gather(place: str) -> list[str]:
        told.append(place)
        return [place]

    assert end_together(gather) == bool(told)
    return told


def test_a_process_that_ends_in_order_tells_those_that_go_on(in_order: None) -> None:
    [place] = comes_to_the_end()
    with pytest.raises(SetupError) as caught:
        meet(lambda here: [here, here, place], 1, "fit")
    assert str(caught.value) == (
        "process 1 has come to fit, and process 2 to the end of the program. Let every process of a job call "
        "set_models, fit and test alike, and none end before the others."
    )


def test_a_process_that_has_failed_ends_alone_until_all_meet_again(in_order: None) -> None:
    with pytest.raises(ValueError, match="mine"), apart_on_error():
        raise ValueError("mine")
    assert comes_to_the_end() == []
    meet(lambda place: [place, place], 0, "test")
    assert len(comes_to_the_end()) == 1


def test_a_program_that_an_exception_has_ended_waits_for_nobody(
    in_order: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "last_value", ValueError(), raising=False)
    assert comes_to_the_end() == []


def test_the_failure_of_another_process_is_no_error_at_the_end(in_order: None) -> None:
    def gather(place: str) -> list[str]:
        raise ConnectionError("it is gone")

    assert end_together(gather) is True


def leave_a_hook(error: BaseException, world_size: int) -> list[tuple[Any, ...]]:
    """What is shown of an exception that leaves a hook, which must come through."""
    shown: list[tuple[Any, ...]] = []
    with pytest.MonkeyPatch.context() as patched, pytest.raises(type(error)) as caught:
        patched.setattr(
            sys, "excepthook", lambda kind, error, trace: shown.append((kind, error, trace is error.__traceback__))
        )
        with in_step(world_size):
            raise error
    assert caught.value is error
    return shown


@pytest.mark.parametrize(
    ("error", "world_size"),
    [(ValueError(), 2), (KeyboardInterrupt(), 1), (SystemExit(0), 1), (SystemExit(2), 1), (SystemExit(None), 1)],
    ids=repr,
)
def test_what_leaves_a_hook_has_the_process_end_alone(in_order: None, error: BaseException, world_size: int) -> None:
    assert leave_a_hook(error, world_size) == []
    assert comes_to_the_end() == []


def test_sys_exit_with_a_failure_in_one_of_several_processes_is_shown(in_order: None) -> None:
    error = SystemExit("no more")
    assert leave_a_hook(error, 2) == [(SystemExit, error, True)]
    assert comes_to_the_end() == []


@pytest.mark.parametrize("code", [0, None])
def test_sys_exit_with_success_in_one_of_several_processes_is_an_error(in_order: None, code: int | None) -> None:
    with pytest.raises(SetupError, match=r"^A hook called sys\.exit in one of several processes") as caught, in_step(2):
        sys.exit(code)
    assert isinstance(caught.value.__cause__, SystemExit)
    assert comes_to_the_end() == []


def test_a_run_that_a_signal_stops_ends_together(in_order: None) -> None:
    assert leave_a_hook(Stopped(signal.SIGTERM), 2) == []
    assert len(comes_to_the_end()) == 1


def test_what_a_spawned_process_runs_starts_its_own_in_the_usual_way(in_order: None) -> None:
    ran: list[tuple[Any, ...]] = []

    def script(*given: Any) -> None:
        ran.append((*given, multiprocessing.get_start_method(allow_none=True)))
        raise SetupError("it ends")

    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        with pytest.raises(SetupError, match="it ends"):
            run_spawned(script, (1, "two"))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert ran == [(1, "two", None)]
    assert comes_to_the_end() == []
