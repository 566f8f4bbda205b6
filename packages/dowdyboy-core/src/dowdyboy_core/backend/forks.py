"""Forks, of which nothing of the parent's must keep a worker waiting."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_forking = 0
_collected = False

_releasing = threading.Lock()
"""Held by a thread that lets go of memory of a framework's, and while a worker is forked."""


@contextmanager
def releasing() -> Iterator[None]:
    """Has no worker be forked in a block in which a thread of ours lets go of memory of a framework's.

    Frameworks keep count of their memory under a lock. If a process is forked while another thread has that lock, it is
    locked in the worker for ever, and the first tensor that is made or freed there waits without end.
    """
    with _releasing:
        yield


@contextmanager
def forks_apart() -> Iterator[None]:
    """Has what is forked in a block wait for nothing that this process was about, and never collect what it has made.

    A forked worker has copies of all objects of its parent's. If its garbage collector frees one of them, the native
    part of it may wait for threads that the worker does not have, without end. So it is told to leave alone all that
    was there before, in the worker and before anything else runs there: to do so in the parent would have to collect
    there first, which takes some tenths of a second for each epoch, and would undo what the user has frozen.
    """
    global _forking
    _forking += 1
    try:
        yield
    finally:
        _forking -= 1


def wait_until_still(seconds: float) -> None:
    """Waits until no other thread of this process is at work, which might hold a lock of a framework's.

    A thread that waits for something holds none. Where this can't be seen (it is Linux that tells), nothing is waited
    for.

    Args:
        seconds: at the most; some threads never rest.
    """
    latest = time.monotonic() + seconds
    while _others_run(threading.get_native_id()) and time.monotonic() < latest:
        time.sleep(0.0005)


def _others_run(own: int) -> bool:
    try:
        tasks = [task for task in os.listdir(_TASKS) if task != str(own)]  # noqa: PTH208 - as below
    except OSError:
        return False
    return any(_runs(task) for task in tasks)


def _runs(task: str) -> bool:
    try:
        with open(f"{_TASKS}/{task}/stat", "rb") as file:  # noqa: PTH123 - quicker, and it is done for each thread
            said = file.read()
    except OSError:  # it has ended
        return False
    return said[said.rindex(b")") + 2 :][:1] == b"R"


_TASKS = "/proc/self/task"


def _before_fork() -> None:
    global _collected
    if not _forking:
        return
    _releasing.acquire()
    _collected = gc.isenabled()
    gc.disable()


def _in_parent() -> None:
    if not _forking:
        return
    _releasing.release()
    if _collected:
        gc.enable()


def _in_child() -> None:
    global _forking
    if not _forking:
        return
    _forking = 0
    _releasing.release()
    gc.freeze()
    if _collected:
        gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
