"""Keeps several processes at the same place, and has one that fails, or ends before the others, end them all.

What waits for all processes (``fit``, ``test``, wrapping a model) begins with ``meet``, and a process that ends comes
to ``end_together``. Both are the same exchange. So a process that ends while others go on is an error in these, and
not something that they wait for until a collective gives up, which may take half an hour.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dowdyboy_core._errors import ConfigError, SetupError
from dowdyboy_core.backend import failures as _failures

from .signals import Stopped

_END = "the end of the program"

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
    _failures.forget()


@contextmanager
def apart_on_error() -> Iterator[None]:
    """Has this process end without waiting for the others if an exception leaves the context."""
    global _apart
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        _apart = True
        if not isinstance(error, KeyboardInterrupt):
            _failures.report(error)
        raise


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
            if error.code:
                _failures.report(error)
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


def check_process_count(nprocs: object) -> None:
    """Refuses a number of processes to start that is none.

    Raises:
        ConfigError: it is no int of at least 1.
    """
    if isinstance(nprocs, bool) or not isinstance(nprocs, int) or nprocs < 1:
        raise ConfigError(f"nprocs={nprocs!r} is not acceptable. Give an int of at least 1.")
