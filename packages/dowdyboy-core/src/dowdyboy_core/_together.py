"""Keeps several processes at the same place, and has one that fails, or ends before the others, end them all.

What waits for all processes (``fit``, ``test``, wrapping a model) begins with ``meet``, and a process that ends comes
to ``end_together``. Both are the same exchange. So a process that ends while others go on is an error in these, and
not something that they wait for until a collective gives up, which may take half an hour.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from ._errors import SetupError
from ._stopping import SIGNALS, Stopped, Stopping

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_END = "the end of the program"

# In seconds: what a process gets to end by itself before it is killed.
_GRACE = 5.0

# Whether this process has left the common way by an exception. One group of processes, one answer: it is global.
_apart = False


def meet(gather: Callable[[Any], list[Any]], rank: int, place: str) -> None:
    """Waits for all processes, which must have come to the same place.

    Raises:
        SetupError: one is elsewhere; the message says where.
    """
    global _apart
    places = gather(place)
    for other, its_place in enumerate(places):
        if its_place != place:
            raise SetupError(
                f"process {rank} has come to {place}, and process {other} to {its_place}. Let every process of a job "
                "call set_models, fit and test alike, and none end before the others."
            )
    _apart = False


@contextmanager
def apart_on_error() -> Iterator[None]:
    """Has this process end without waiting for the others if an exception leaves the context."""
    global _apart
    try:
        yield
    except SystemExit:
        raise
    except BaseException:
        _apart = True
        raise


def run_spawned(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Runs ``function(*args)`` in a process that ``spawn`` has started, as a launcher's process would."""
    import multiprocessing

    # It was started afresh, and loaders would start their workers so, too, which needs data that can be sent to them.
    multiprocessing.set_start_method(None, force=True)
    with apart_on_error():
        function(*args)


class Spawned(Protocol):
    """What ``spawn`` of a framework gives: the processes, of which ``sentinels`` says whom it still waits for."""

    processes: Any
    sentinels: dict[Any, int]

    def join(self) -> bool:
        """Waits until another one ends, and raises the error of one that failed; whether all have ended."""


def wait_for_spawned(spawned: Spawned) -> None:
    """Waits until all processes have ended; the first one that fails, or an exception here, ends the others.

    Both frameworks would do it, with SIGTERM alone. Paddle's handler of it may hang, and a process that waits for
    another one in a collective comes to no handler of Python's: they, and who waits for them, would stay for ever.
    """
    failed = None

    def pass_on() -> None:
        for process in spawned.processes:
            if process.is_alive():
                process.terminate()

    here = Stopping(list, rank=0, world_size=1, then=pass_on)
    try:
        with here.listening():
            running = dict(spawned.sentinels)
            while running and failed is None:
                ended = [running.pop(sentinel) for sentinel in _wait(list(running), None)]
                failed = next((index for index in ended if _status(spawned.processes[index])), None)
            stopped = here.received or _signal_of(failed, spawned.processes)
            if stopped is not None:  # the others are at their end, too, and write what is left
                _wait(list(running), None if here.received else _GRACE)
    finally:
        _end(spawned.processes)
    if stopped is not None:
        raise Stopped(stopped)
    if failed is not None:  # the others have failed since, which is not what to report
        spawned.sentinels = {spawned.processes[failed].sentinel: failed}
    while not spawned.join():
        pass


def _wait(sentinels: list[Any], timeout: float | None) -> list[Any]:
    from multiprocessing.connection import wait  # here, since only processes that have started others need it

    return wait(sentinels, timeout)


def _signal_of(failed: int | None, processes: list[BaseProcess]) -> int | None:
    """The signal for which a process has stopped in order, and with it all the others."""
    status = 0 if failed is None else processes[failed].exitcode
    return next((signum for signum in SIGNALS if status == 128 + signum), None)


def _status(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


def _end(processes: list[BaseProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()
    latest = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0.0, latest - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def in_step(world_size: int) -> Iterator[None]:
    """What hooks run in: no process leaves it before the others without ending them all.

    Raises:
        SetupError: for ``sys.exit(0)`` in one of several processes: nobody else would notice that it is gone.
    """
    global _apart
    with apart_on_error():
        try:
            yield
        except Stopped:  # which all processes do together
            raise
        except SystemExit as error:
            _apart = True
            if world_size > 1 and not error.code:
                raise SetupError("A hook called sys.exit in one of several processes, which ends them all.") from error
            if world_size > 1:
                sys.excepthook(type(error), error, error.__traceback__)  # or nobody would learn where it was called
            raise


def end_together(gather: Callable[[Any], list[Any]]) -> bool:
    """Waits at the end of the program for the other processes to come there, too, or to go on and be told.

    Returns:
        Whether this process has come there in order. One that failed must not wait: the others can't come.
    """
    if _apart or hasattr(sys, "last_value"):  # which the interpreter sets when an exception ends a script
        return False
    with suppress(Exception):  # another one has failed, and says so itself
        gather(_END)
    return True
