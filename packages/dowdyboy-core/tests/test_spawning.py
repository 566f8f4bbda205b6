"""The process that calls ``spawn``: ends a job together, passes signals on, and tells which process failed first."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import SetupError
from dowdyboy_core.backend import failures as _failures
from dowdyboy_core.backend import spawning as _spawning
from dowdyboy_core.backend import together as _together
from dowdyboy_core.backend.signals import TIME_IS_UP, Stopped
from dowdyboy_core.backend.spawning import ProcessFailure, Work, run_spawned, wait_for_spawned

CONTEXT = multiprocessing.get_context("spawn")

# Run by the built-in exec, since a process that starts afresh can import no module of the tests.
SUCCESSFUL = "ready.set()"
FAILING = "ready.wait(); raise SystemExit(3)"
# Does not end when told to, as one that waits in a collective or hangs in a handler; nor does its child.
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    open("child", "w").write(str(os.getpid()))
    while True:
        signal.pause()
ready.set()
signal.pause()
"""


class Started:
    """What ``spawn`` of a framework gives, as far as it counts here."""

    def __init__(self, *programs: str) -> None:
        self.ready = CONTEXT.Event()
        self.processes = [CONTEXT.Process(target=exec, args=(program, {"ready": self.ready})) for program in programs]
        for process in self.processes:
            process.start()
        self.ready.wait()


class Failed(Exception):
    """The error of the job."""


def wait_for(started: Any) -> None:
    """Waits for a job whose processes are there already, or that ``started`` gives for its ``Work``."""
    start = started if callable(started) else lambda work: started
    wait_for_spawned(start, print, (), Failed)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_spawning, "_GRACE", 0.25)


def test_processes_that_succeed_are_waited_for() -> None:
    started = Started(SUCCESSFUL, SUCCESSFUL)
    wait_for(started)
    assert [process.exitcode for process in started.processes] == [0, 0]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_to_fail_is_told_and_ends_those_that_would_not_with_their_children(
    order: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    started = Started(*[FAILING, STUBBORN][::order])
    rank = [0, 1][::order][0]
    with pytest.raises(Failed) as caught:
        wait_for(started)
    [failure] = caught.value.args
    text = f"Process {rank} ended with exit status 3 before it came to its function; what it wrote to stderr says why."
    assert failure == ProcessFailure(rank, started.processes[rank].pid or 0, 3, False, text)
    assert started.processes[1 - rank].exitcode == -signal.SIGKILL
    child = int((tmp_path / "child").read_text())
    latest = time.monotonic() + 10
    while is_there(child):
        assert time.monotonic() < latest


def test_an_exception_while_waiting_ends_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    started = Started(STUBBORN)

    def interrupted(handles: Any, timeout: float | None) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(_spawning, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wait_for(started)
    assert started.processes[0].exitcode == -signal.SIGKILL


def test_what_was_started_before_the_next_could_not_be_is_ended() -> None:
    started: list[Started] = []

    def start(work: Work) -> Any:
        started.append(Started("ready.set(); import time; time.sleep(60)"))
        raise OSError("no more processes")

    with pytest.raises(OSError, match="no more processes"):
        wait_for(start)
    assert started[0].processes[0].exitcode == -signal.SIGTERM


class Simulated:
    """A process of a job that runs in no process.

    Args:
        job: what it belongs to.
        pid: its number; simulated as well.
        stubborn: it does not end when told to.
    """

    def __init__(self, job: Job, pid: int, *, stubborn: bool = False) -> None:
        self.job, self.pid, self.stubborn = job, pid, stubborn
        self.exitcode: int | None = None
        self.sentinel = self

    def is_alive(self) -> bool:
        return self.exitcode is None

    def terminate(self) -> None:
        self.job.send(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        self.job.send(self.pid, signal.SIGKILL)

    def join(self, timeout: float | None = None) -> None:
        if self.is_alive():
            assert timeout is not None, "it would be waited for for ever"
            self.job.done.append(("join", self.job.name(self.pid), timeout))
            self.job.now += timeout


FIRST_PID = 2**22 + 1  # which no process has


class Job:
    """What ``spawn`` gives for simulated processes.

    Attributes:
        now: the time.
        done: what was done to which process; and for whom it was waited how long.
        moments: what happens while the job is waited for, one after another.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **processes: dict[str, Any]) -> None:
        self.now = 0.0
        self.done: list[tuple[Any, ...]] = []
        self.moments: list[Callable[[], object]] = []
        self.names = list(processes)
        self.processes = [Simulated(self, FIRST_PID + i, **item) for i, item in enumerate(processes.values())]
        self.folder = Path()
        monkeypatch.setattr(_spawning, "_wait", self.wait)
        monkeypatch.setattr(_spawning, "_send", self.send)
        monkeypatch.setattr(_spawning, "_descendants", lambda pids: [])
        monkeypatch.setattr(os, "pidfd_open", self.no_handle, raising=False)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def start(self, work: Work) -> Job:
        self.folder = Path(work.folder)
        return self

    def no_handle(self, pid: int) -> int:
        raise OSError("not in this container")

    def name(self, pid: int) -> str:
        return self.names[pid - FIRST_PID]

    def send(self, pid: int, signum: int) -> None:
        self.done.append((signal.Signals(signum).name, self.name(pid)))
        process = self.processes[pid - FIRST_PID]
        if signum == signal.SIGKILL or (signum == signal.SIGTERM and not process.stubborn):
            process.exitcode = -signum

    def wait(self, handles: list[Simulated], timeout: float | None) -> None:
        self.done.append(("wait", [self.name(handle.pid) for handle in handles], timeout))
        self.moments.pop(0)()

    def end(self, **statuses: int) -> Callable[[], None]:
        """A moment at which processes end."""

        def moment() -> None:
            self.now += 1.0
            for name, status in statuses.items():
                self.processes[self.names.index(name)].exitcode = status

        return moment

    def report(self, name: str, text: str, ago: float = 0.0, leaves: bool = False) -> None:
        """Has a process report a failure of some seconds ago."""
        path = self.folder / f"{FIRST_PID + self.names.index(name)}.json"
        lines = {"time": self.now - ago, "text": f"Traceback of {text}\n", "brief": text, "leaves": leaves}
        path.write_text(json.dumps(lines))

    def fails(self) -> ProcessFailure:
        """What the job ends with."""
        with pytest.raises(Failed) as caught:
            wait_for(self.start)
        [failure] = caught.value.args
        assert isinstance(failure, ProcessFailure)
        return failure


def test_every_process_that_succeeds_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, a={}, b={}, c={})
    job.moments = [job.end(b=0), job.end(c=0, a=0)]
    wait_for(job.start)
    assert job.done == [("wait", ["a", "b", "c"], None), ("wait", ["a", "c"], None)]
    assert not job.folder.exists()


def test_others_share_the_time_that_they_get_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, a={"stubborn": True}, b={}, c={"stubborn": True}, d={})
    job.moments = [job.end(b=3)]
    assert job.fails().rank == 1
    assert job.done == [
        ("wait", ["a", "b", "c", "d"], None),
        ("SIGTERM", "a"),
        ("SIGTERM", "c"),
        ("SIGTERM", "d"),
        ("join", "a", 0.25),
        ("join", "c", 0.0),
        ("SIGKILL", "a"),
        ("SIGKILL", "c"),
    ]


def test_the_first_report_counts_whoever_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, a={}, b={}, c={})

    def fail() -> None:
        job.end(a=-signal.SIGABRT)()
        job.report("b", "ValueError: the cause", ago=0.5)
        job.report("c", "RuntimeError: its partner is gone", ago=0.1)

    job.moments = [fail]
    failure = job.fails()
    assert (failure.rank, failure.raised) == (1, True)
    assert failure.text.splitlines() == [
        "Process 1 failed:",
        "",
        "Traceback of ValueError: the cause",
        "",
        "and after it:",
        "    process 2: RuntimeError: its partner is gone",
        "    process 0: was ended by SIGABRT",
    ]


def test_one_that_was_aborted_is_heard_out_for_the_report_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, a={}, b={})

    def report() -> None:
        job.report("b", "ValueError: the cause", leaves=True)
        job.end(b=1)()

    job.moments = [job.end(a=-signal.SIGABRT), report]
    failure = job.fails()
    assert failure.text.startswith("Process 1 failed:\n\nTraceback of ValueError: the cause\n")
    assert (failure.rank, failure.status, failure.raised) == (1, 1, False)
    assert job.done == [("wait", ["a", "b"], None), ("wait", ["b"], _spawning._LINGER)]


def test_one_that_was_aborted_alone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, a={}, b={})
    job.moments = [job.end(a=-signal.SIGABRT), job.end(), job.end()]
    assert job.fails().text == "Process 0 was ended by SIGABRT."
    assert job.done[1:] == [("wait", ["b"], 2.0), ("wait", ["b"], 1.0), ("SIGTERM", "b")]


def test_one_that_was_killed_is_the_first_whenever_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, a={}, b={})

    def fail() -> None:
        job.end(a=1, b=-signal.SIGKILL)()
        job.report("a", "RuntimeError: its partner is gone", ago=0.5)

    job.moments = [fail]
    failure = job.fails()
    assert (failure.rank, failure.status) == (1, -signal.SIGKILL)
    assert failure.text.splitlines() == [
        "Process 1 was ended by SIGKILL, as the kernel ends one where memory runs out.",
        "",
        "and after it:",
        "    process 0: RuntimeError: its partner is gone",
    ]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_process_that_a_signal_has_stopped_stands_for_all(monkeypatch: pytest.MonkeyPatch, signum: int) -> None:
    job = Job(monkeypatch, a={}, b={}, c={})
    job.moments = [job.end(b=128 + signum), job.end(a=128 + signum)]
    with pytest.raises(Stopped) as caught:
        wait_for(job.start)
    assert caught.value.code == 128 + signum
    assert job.done[:2] == [("wait", ["a", "b", "c"], None), ("wait", ["a", "c"], 0.25)]
    assert job.done[-1] == ("SIGTERM", "c")


def test_processes_whose_time_is_up_end_so_what_started_them(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(monkeypatch, a={}, b={})
    job.moments = [job.end(b=75), job.end(a=75)]
    with pytest.raises(Stopped) as caught:
        wait_for(job.start)
    assert caught.value.code == 75


@pytest.fixture
def usual_handlers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has signals handled as in a script under Slurm, and gives those that would have ended it."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    ended: list[int] = []
    monkeypatch.setattr(_spawning, "end_by", ended.append)
    signums = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in signums}
    yield ended
    for signum, handler in before.items():
        assert signal.getsignal(signum) == signal.SIG_DFL
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)


@pytest.mark.parametrize(
    ("signum", "passed"),
    [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGTERM"), (signal.SIGHUP, "SIGHUP")],
)
def test_a_signal_that_comes_here_is_passed_on_and_a_second_one_ends_all(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], usual_handlers: Any, signum: int, passed: str
) -> None:
    job = Job(monkeypatch, a={"stubborn": True}, b={}, c={"stubborn": True})

    def again() -> None:
        signal.raise_signal(signal.SIGTERM)  # an echo
        job.now += 1.1
        signal.raise_signal(signal.SIGTERM)

    job.moments = [job.end(b=0), lambda: signal.raise_signal(signum), again]
    with pytest.raises(Stopped) as caught:
        wait_for(job.start)
    assert caught.value.code == 128 + signum
    sent = [item for item in job.done if item[0] != "wait"]
    assert sent == [(passed, "a"), (passed, "c"), ("SIGKILL", "a"), ("SIGKILL", "c")]
    assert usual_handlers == [signal.SIGTERM]
    assert f"{signal.Signals(signum).name}: stopping" in capfd.readouterr().err


def test_a_signal_that_may_mean_anything_is_passed_on_each_time(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], usual_handlers: Any
) -> None:
    job = Job(monkeypatch, a={}, b={})

    def signalled() -> None:
        job.now += 10
        signal.raise_signal(signal.SIGUSR1)

    job.moments = [signalled, signalled, job.end(a=0, b=0)]
    wait_for(job.start)
    assert [item for item in job.done if item[0] != "wait"] == [("SIGUSR1", "a"), ("SIGUSR1", "b")] * 2
    assert usual_handlers == []
    assert capfd.readouterr().err == ""


def test_an_exception_beside_a_signal_is_told(monkeypatch: pytest.MonkeyPatch, usual_handlers: Any) -> None:
    job = Job(monkeypatch, a={}, b={})

    def fail() -> None:
        signal.raise_signal(signal.SIGTERM)
        job.now += 1
        job.report("b", "ValueError: the cause")

    job.moments = [fail]
    assert job.fails().rank == 1


def test_it_is_waited_for_as_long_as_was_asked() -> None:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    with receiving, sending:
        assert _spawning._wait([receiving], 0.01) == []
        sending.send("now")
        assert _spawning._wait([receiving], None) == [receiving]


@pytest.fixture
def as_spawned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Has this process be one that was spawned; gives a function that runs another, and one that reads its report."""
    monkeypatch.setattr(_together, "_apart", False)
    monkeypatch.setattr(_failures, "_folder", None)
    monkeypatch.setattr(_failures, "_present", None)
    monkeypatch.delattr(sys, "last_value", raising=False)
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)

    def run(function: Callable[..., Any], *args: Any) -> None:
        run_spawned(Work(function, args, str(tmp_path)))

    yield run, lambda: _failures.read(str(tmp_path), os.getpid())
    multiprocessing.set_start_method(before, force=True)


def test_what_a_spawned_process_runs_starts_its_own_in_the_usual_way(as_spawned: Any) -> None:
    run, report = as_spawned
    ran: list[tuple[Any, ...]] = []
    run(lambda *given: ran.append((*given, multiprocessing.get_start_method(allow_none=True))), 1, "two")
    assert ran == [(1, "two", None)]
    assert report() is None


class Unspeakable(Exception):
    """Can be neither sent nor printed."""

    def __init__(self) -> None:
        self.secret = lambda: None

    def __str__(self) -> str:
        raise ValueError


def fail_with(error: BaseException) -> None:
    """What a user's function does."""
    raise error


@pytest.mark.parametrize(
    ("error", "status", "brief", "leaves"),
    [
        (ValueError("mine"), 1, "ValueError: mine", False),
        (SystemExit(3), 3, "SystemExit: 3", True),
        (ValueError("\udc80"), 1, "ValueError: \udc80", False),
        (ValueError("x" * 10**6), 1, "characters …]", False),
        (Unspeakable(), 1, "Unspeakable", False),
    ],
    ids=["exception", "exit", "not to be encoded", "long", "not to be sent"],
)
def test_a_failure_is_reported(as_spawned: Any, error: BaseException, status: int, brief: str, leaves: bool) -> None:
    run, report = as_spawned
    with pytest.raises(SystemExit) as caught:
        run(fail_with, error)
    assert caught.value.code == status
    found = report()
    assert found.time <= time.monotonic()
    assert brief in found.brief and len(found.brief) < 600
    assert "in fail_with" in found.text and len(found.text) < 110_000
    assert found.leaves is leaves


def test_an_end_in_order_and_one_by_a_signal_are_no_failures(as_spawned: Any) -> None:
    run, report = as_spawned
    for error, status in [
        (SystemExit(0), 0),
        (Stopped(signal.SIGTERM), 143),
        (Stopped(TIME_IS_UP), 75),
        (KeyboardInterrupt(), 130),
    ]:
        with pytest.raises(SystemExit) as caught:
            run(fail_with, error)
        assert caught.value.code == status
        assert report() is None


def test_the_exception_of_a_hook_is_the_failure_of_one_that_calls_sys_exit_for_it(as_spawned: Any) -> None:
    run, report = as_spawned

    def function() -> None:
        try:
            with _together.in_step(2):
                raise ValueError("in a hook")
        except ValueError:
            sys.exit("it failed")

    with pytest.raises(SystemExit, match="it failed"):
        run(function)
    assert report().brief == "ValueError: in a hook"


def test_an_exception_that_was_caught_is_forgotten_when_all_are_in_step_again(as_spawned: Any) -> None:
    run, report = as_spawned

    def function() -> None:
        with pytest.raises(ValueError, match="in a hook"), _together.in_step(2):
            raise ValueError("in a hook")
        assert report() is not None
        _together.meet(lambda place: [place], 0, "fit")

    run(function)
    assert report() is None


def test_a_function_that_cannot_be_imported_is_a_failure_as_any(as_spawned: Any, tmp_path: Path) -> None:
    _, report = as_spawned
    sent = Work(json.dumps, ({},), str(tmp_path))
    state = sent.__getstate__()
    state["_parts"] = state["_parts"].replace(b"json", b"jsom")
    arrived = Work.__new__(Work)
    arrived.__dict__.update(state)
    with pytest.raises(SystemExit):
        run_spawned(arrived)
    assert report().brief == "ModuleNotFoundError: No module named 'jsom'"


def test_where_nothing_can_be_reported_the_framework_is_told(as_spawned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, report = as_spawned
    monkeypatch.setattr(_failures, "_write", lambda path, text: False)
    with pytest.raises(SetupError, match="it ends"):
        run(fail_with, SetupError("it ends"))
    assert report() is None
