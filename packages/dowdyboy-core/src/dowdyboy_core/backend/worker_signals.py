"""Signals in the workers of a loader: what is meant for the process that they work for, and what that asks of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from .signals import is_handled_here, is_natively_handled, stopping_signals


def ignore_in_worker() -> None:
    """Has a worker of a loader leave the signals that stop a run, but for SIGTERM, to the process that it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for signum in stopping_signals(os.environ):
        uncared_for = signal.getsignal(signum) == signal.SIG_DFL and not is_natively_handled(signum)
        if signum != signal.SIGTERM and (uncared_for or is_handled_here(signum)):
            signal.signal(signum, signal.SIG_IGN)


class WorkerInit:
    """Has a worker of a loader outlive a signal that its whole job got, and not the process that it works for.

    A job is often signalled as a whole: by Ctrl-C in a terminal, by Slurm, by systemd, and the batch under way should
    come. From the process that it works for, a worker takes SIGTERM as ever. When that process is killed, the worker
    ends: the frameworks' own checks miss one that is killed while the worker starts, or come only between two batches.
    Programs that a worker starts inherit that SIGTERM is blocked in it.

    Args:
        then: what the user has a worker begin with.
    """

    def __init__(self, then: Callable[[int], Any] | None) -> None:
        self._then = then

    def __call__(self, worker_id: int) -> None:
        """Runs in the worker, at its start."""
        import multiprocessing

        ignore_in_worker()
        if _TELLS_SENDER:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        parent = multiprocessing.parent_process()
        employer = os.getppid() if parent is None or parent.pid is None else parent.pid
        threading.Thread(target=_serve, args=(employer,), daemon=True).start()
        if self._then is not None:
            self._then(worker_id)


_TELLS_SENDER = hasattr(signal, "sigtimedwait")  # who has sent a signal; it is not there on macOS

_LOOK = 1.0  # Seconds from one look at the process that a worker works for to the next.


def _serve(employer: int) -> None:
    """Ends this process when its employer says so, or is gone."""
    above = os.getppid()  # the employer, but for a server that forks for it, or where it is gone already
    while os.getppid() == above and _exists(employer):
        if not _TELLS_SENDER:
            time.sleep(_LOOK)
            continue
        got = signal.sigtimedwait({signal.SIGTERM}, _LOOK)
        if got is not None and got.si_pid == employer:
            os._exit(0)
    os._exit(1)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user, and so it is there
        return True
    return True
