"""``spawn``: starts the processes of a job, passes signals on to them, ends them together, says which one failed."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dowdyboy_core.backend import failures as _failures

from .sent_errors import pickled, unpickled
from .signals import ECHO, ON_REQUEST, SIGNALS, TIME_IS_UP, Stopped, end_by, handled, status_of, stopping_signals, tell
from .together import apart_on_error

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

# In seconds: what a process gets to end by itself before it is killed.
_GRACE = 5.0

# In seconds: what others get to tell of a failure after one was aborted, which is mostly not the first to fail.
_LINGER = 2.0


class Work:
    """What each process of a job runs, on its way there.

    Its parts are taken apart at once and put together in the process only when they are asked for. So a function
    whose module can't be imported there fails as any function does.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], folder: str) -> None:
        self.folder = folder
        self._parts: Any = (function, args)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_parts": pickled(self._parts)}

    def load(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The function and its arguments."""
        if isinstance(self._parts, bytes):
            self._parts = unpickled(self._parts)
        function, args = self._parts
        return function, args


def run_spawned(work: Work) -> None:
    """Runs the function of a job in a process that ``spawn`` has started, as a launcher's process would."""
    # It was started afresh, and loaders would start their workers so, too, which needs data that can be sent to them.
    multiprocessing.set_start_method(None, force=True)
    _failures.report_to(work.folder)
    try:
        with apart_on_error():
            function, args = work.load()
            function(*args)
    except Stopped:
        raise
    except SystemExit as error:
        if error.code:
            _failures.report(error)
        raise
    except KeyboardInterrupt:  # which the frameworks' spawn takes for an end in order
        raise SystemExit(128 + signal.SIGINT) from None
    except BaseException as error:
        if _failures.report(error):
            raise SystemExit(1) from None
        raise  # for the framework's own way of telling it


class Spawned(Protocol):
    """What ``spawn`` of a framework gives."""

    processes: Any


@dataclass(frozen=True)
class ProcessFailure:
    """A process that failed.

    Attributes:
        rank: its number.
        pid: its number on the machine.
        status: what it ended with, or minus the number of the signal that ended it.
        raised: whether an exception ended it, and no ``sys.exit`` or signal.
        text: its traceback, or what is known otherwise, and what became of the others.
    """

    rank: int
    pid: int
    status: int
    raised: bool
    text: str


def wait_for_spawned(
    start: Callable[[Work], Spawned],
    function: Callable[..., Any],
    args: Iterable[Any],
    error: Callable[[ProcessFailure], Exception],
) -> None:
    """Runs ``function(*args)`` in processes, and waits until all have ended; the first one that fails ends the others.

    Args:
        start: starts the processes, which give the ``Work`` to ``run_spawned``.
        function: what each runs.
        args: with what.
        error: the exception to raise for a failure.

    Raises:
        Stopped: a signal came, here or to one of them, and they have ended for it.
    """
    with tempfile.TemporaryDirectory(prefix="dowdyboy_spawn_", ignore_cleanup_errors=True) as folder:
        job = _Job(folder)
        with handled(stopping_signals(os.environ), job.note):
            try:
                job.start(lambda: start(Work(function, tuple(args), folder)))
                job.wait()
            finally:
                job.end()
        job.conclude(error)


class _Job:
    """The processes of a job, seen from the one that has started them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._spawned: Spawned | None = None
        self._processes: list[BaseProcess] = []
        self._received: int | None = None
        self._since = 0.0
        self._seen: dict[int, float] = {}  # when each process was found to have ended, by itself

    def start(self, start: Callable[[], Spawned]) -> None:
        """Starts the processes; all of them, or none."""
        before = set(multiprocessing.active_children())
        try:
            self._spawned = start()  # kept: the processes still ask for what it holds
            self._processes = list(self._spawned.processes)
        except BaseException:
            self._processes = [child for child in multiprocessing.active_children() if child not in before]
            raise
        if self._received is not None:
            self._pass_on(self._received)

    def note(self, signum: int, frame: Any) -> None:
        """Passes a signal on; a second one ends all."""
        now = time.monotonic()
        if signum in ON_REQUEST:
            # The processes may have handlers of their own for it, and then it is theirs to say what it means.
            if self._pass_on(signum) or self._received is not None:
                return
        if self._received is None:
            self._received, self._since = signum, now
            tell(signum)
            self._pass_on(signum)
        elif now - self._since > ECHO:
            self._kill()
            end_by(signum)

    def _pass_on(self, signum: int) -> bool:
        """Sends a signal to those that run; whether there is any."""
        running = [process for process in self._processes if process.is_alive()]
        for process in running:
            # Where nobody types, SIGINT is often ignored.
            _send(process.pid, signal.SIGTERM if signum == signal.SIGINT else signum)
        return bool(running)

    def wait(self) -> None:
        """Waits until all have ended, or one has failed."""
        with _handles(self._processes) as handles:
            while self._running() and not self._failed():
                self._look(_wait([handles[rank] for rank in self._running()], None))
            if self._stopped() is not None:  # the others are at their end, too, and write what is left
                latest = None if self._received is not None else time.monotonic() + _GRACE
            elif self._first_is_silent():
                latest = time.monotonic() + _LINGER
            else:
                return
            while self._running() and (self._stopped() is not None or self._first_is_silent()):
                left = None if latest is None else latest - time.monotonic()
                if left is not None and left <= 0:
                    return
                self._look(_wait([handles[rank] for rank in self._running()], left))

    def _look(self, _: Any) -> None:
        now = time.monotonic()
        for rank in self._running():
            if self._processes[rank].exitcode is not None:
                self._seen[rank] = now

    def _running(self) -> list[int]:
        return [rank for rank in range(len(self._processes)) if rank not in self._seen]

    def _status(self, rank: int) -> int:
        return self._processes[rank].exitcode or 0

    def _failed(self) -> list[int]:
        """Those that have ended with an error, by themselves."""
        return [rank for rank in self._seen if self._status(rank)]

    def _reports(self) -> dict[int, _failures.Report]:
        found = {rank: _failures.read(self._folder, item.pid or 0) for rank, item in enumerate(self._processes)}
        return {rank: report for rank, report in found.items() if report is not None}

    def _first_is_silent(self) -> bool:
        """Whether all that is known is that a process was aborted, as one is whose partner is gone."""
        return not self._reports() and {self._status(rank) for rank in self._failed()} == {-signal.SIGABRT}

    def _stopped(self) -> int | None:
        """The signal for which the processes have stopped in order, or ``TIME_IS_UP``."""
        if self._reports():
            return None
        if self._received is not None:
            return self._received
        failed = self._failed()
        if not failed:
            return None
        return next((item for item in (*SIGNALS, TIME_IS_UP) if self._status(failed[0]) == status_of(item)), None)

    def end(self) -> None:
        """Ends those that run: with time to do so in order, then without."""
        for process in self._processes:
            if process.is_alive():
                process.terminate()
        latest = time.monotonic() + _GRACE
        for process in self._processes:
            process.join(max(0.0, latest - time.monotonic()))
        self._kill()
        for process in self._processes:
            process.join()

    def _kill(self) -> None:
        """Ends those that run, and what these have started, at once."""
        running = [process for process in self._processes if process.is_alive()]
        below = _descendants([process.pid for process in running]) if running else []
        for process in running:
            process.kill()
        for pid in below:
            _send(pid, signal.SIGKILL)

    def conclude(self, error: Callable[[ProcessFailure], Exception]) -> None:
        """Raises what the processes have ended for, if that is an error or a signal."""
        stopped = self._stopped()
        if stopped is not None:
            raise Stopped(stopped)
        if self._failed():
            raise error(self._failure())
        if self._received is not None:
            raise Stopped(self._received)

    def _failure(self) -> ProcessFailure:
        reports = self._reports()
        # Nothing that another process does has one killed: it was the first. What else ends without a word is seen
        # at once; what fails since it is gone has an exception to raise and to report, and comes later.
        times = {rank: self._seen[rank] for rank in self._failed() if not (reports and self._was_told(rank))}
        times |= {rank: report.time for rank, report in reports.items()}
        silent = {rank: self._status(rank) for rank in times if rank not in reports}
        times |= {rank: 0.0 for rank, status in silent.items() if status == -signal.SIGKILL}
        # Frameworks abort a process whose partner is gone, sometimes while the partner is still about to say why.
        if not all(_failures.is_consequence(report.brief) for report in reports.values()):
            times |= {rank: math.inf for rank, status in silent.items() if status == -signal.SIGABRT}
        first, *others = sorted(times, key=lambda rank: times[rank])
        report = reports.get(first)
        text = f"Process {first} failed:\n\n{report.text}" if report else f"Process {first} {self._end_of(first)}."
        if others:
            said = [reports[rank].brief if rank in reports else self._end_of(rank) for rank in others]
            lines = [f"    process {rank}: {what}" for rank, what in zip(others, said, strict=True)]
            text = "\n".join([text.rstrip(), "", "and after it:", *lines])
        raised = report is not None and not report.leaves
        return ProcessFailure(first, self._processes[first].pid or 0, self._status(first), raised, text)

    def _was_told(self, rank: int) -> bool:
        """Whether a process has ended by a signal that was passed on to it."""
        return self._received is not None and self._status(rank) in {-signum for signum in SIGNALS}

    def _end_of(self, rank: int) -> str:
        """How a process has ended that has reported nothing."""
        status = self._status(rank)
        if status >= 0:
            begun = _failures.has_begun(self._folder, self._processes[rank].pid or 0)
            why = "" if begun else " before it came to its function; what it wrote to stderr says why"
            return f"ended with exit status {status}{why}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = ", as the kernel ends one where memory runs out" if status == -signal.SIGKILL else ""
        return f"was ended by {name}{hint}"


def _wait(handles: list[Any], timeout: float | None) -> list[Any]:
    from multiprocessing.connection import wait  # here, since only processes that have started others need it

    return wait(handles, timeout)


@contextmanager
def _handles(processes: list[BaseProcess]) -> Iterator[list[Any]]:
    """For each process something that is ready when it has ended.

    What multiprocessing offers for it is ready later where it has left children, which keep the other end open.
    """
    opened: list[int] = []
    try:
        with suppress(AttributeError, OSError):  # of Linux, and not of every container
            for process in processes:
                opened.append(os.pidfd_open(process.pid or 0))
        yield opened if len(opened) == len(processes) else [process.sentinel for process in processes]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _send(pid: int | None, signum: int) -> None:
    if pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def _descendants(pids: list[int | None]) -> list[int]:
    """What processes have started, and these again, but for what has left their session, as a server does."""
    session = os.getsid(0)
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):  # not there on macOS, where workers notice that they are alone
        with suppress(OSError, ValueError, IndexError):
            fields = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session:
                parents[int(entry.parent.name)] = int(fields[1])
    found: list[int] = []
    layer = set(pids)
    while layer:
        layer = {pid for pid, parent in parents.items() if parent in layer}
        found += layer  # type: ignore[arg-type]
    return found
