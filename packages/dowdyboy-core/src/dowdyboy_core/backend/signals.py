"""Signals as the operating system has them: which are to stop a run, who handles them, and a second one at any time."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from dowdyboy_core._errors import ConfigError

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
"""Those that can stop a run."""

ON_REQUEST = tuple(signum for signum in SIGNALS if signum.name.startswith("SIGUSR"))
"""Those of them that mean what anyone likes, and so stop a run only where it is known what they are for."""

REQUEST = "DOWDYBOY_STOP_SIGNALS"
"""The environment variable that names these; without it, both stop a run under Slurm."""

ECHO = 1.0
"""Seconds in which another signal is the same one: launchers and terminals signal a process twice for one thing."""

_OURS: dict[int, Callable[[int, Any], None]] = {}
"""What handles a signal for ``handled``, or did so last."""

_UNCARED_FOR = (signal.SIG_DFL, signal.default_int_handler, None)  # None: a handler of a library, not of Python


def stopping_signals(environment: Mapping[str, str]) -> tuple[signal.Signals, ...]:
    """The signals that stop a run in this environment.

    Raises:
        ConfigError: ``DOWDYBOY_STOP_SIGNALS`` names another.
    """
    asked = environment.get(REQUEST)
    if asked is None:
        return SIGNALS if "SLURM_JOB_ID" in environment else tuple(item for item in SIGNALS if item not in ON_REQUEST)
    names = [word if word.startswith("SIG") else f"SIG{word}" for word in asked.upper().replace(",", " ").split()]
    if not set(names) <= {item.name for item in ON_REQUEST}:
        raise ConfigError(
            f"{REQUEST}={asked!r} is not a list of USR1 and USR2. Set it to 'USR1', 'USR2' or 'USR1,USR2', or to "
            "nothing, for neither; SIGTERM, SIGINT and SIGHUP stop a run without it."
        )
    return tuple(item for item in SIGNALS if item not in ON_REQUEST or item.name in names)


TIME_IS_UP = 2**16
"""Stands where else a signal's number does for a run whose time is up; larger than any of these."""

UNFINISHED = 75
"""The exit status of such a run: EX_TEMPFAIL of ``sysexits.h``, by which a program asks to be started again later."""


class Stopped(SystemExit):
    """Ends a run that a signal asked to stop, once it is saved; the exit status is 128 + the signal's number.

    Where the time of the run is up, the status is ``UNFINISHED``.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(status_of(signum))


def status_of(signum: int) -> int:
    """The exit status of what ends for a signal, or for ``TIME_IS_UP``."""
    return UNFINISHED if signum == TIME_IS_UP else 128 + signum


@contextmanager
def handled(signums: Sequence[int], handler: Callable[[int, Any], None]) -> Iterator[list[int]]:
    """Has ``handler`` called for the signals that nobody cares for, and gives these.

    A handler of the user's own stays in force, and so does ignoring a signal. Only the main thread can have signals
    handled.
    """
    taken: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for signum in signums:
            before = signal.getsignal(signum)
            if before in _UNCARED_FOR and not is_natively_handled(signum):
                taken[int(signum)] = before
                signal.signal(signum, handler)
                _OURS[int(signum)] = handler
    try:
        yield list(taken)
    finally:
        for number, before in taken.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)


def tell(signum: int) -> None:
    """Says on stderr that a signal has been noted; not with print, in the middle of which it may have come."""
    text = (
        f"\n{signal.Signals(signum).name}: stopping after this batch; another one after a second ends the run at once\n"
    )
    with suppress(OSError):  # SIGHUP says that the terminal is gone
        os.write(2, text.encode())


def end_by(signum: int) -> None:
    """Ends the process, or raises KeyboardInterrupt, as if nobody had cared for the signal."""
    signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    signal.raise_signal(signum)


def is_handled_here(signum: int) -> bool:
    """Whether ``handled`` has a signal handled now, in this process or in the one that it was forked from."""
    return signum in _OURS and signal.getsignal(signum) == _OURS[signum]


def is_natively_handled(signum: int) -> bool:
    """Whether native code has set a handler that is to stay, of which Python says that nobody handles the signal."""
    if os.name != "posix" or signal.getsignal(signum) != signal.SIG_DFL:
        return False
    action = ctypes.create_string_buffer(_LARGE)
    _libc().sigaction(int(signum), None, action)
    address = ctypes.c_void_p.from_buffer(action).value  # the handler comes first
    # PaddlePaddle has SIGTERM end the process with a trace, which is what stopping in order is better than.
    return bool(address) and (signum != signal.SIGTERM or _is_of_python(address))


def _is_of_python(address: int | None) -> bool:
    """Whether a function is one of the interpreter's own, as the handler that ``faulthandler.register`` sets."""
    bases = []
    for place in (address, ctypes.cast(ctypes.pythonapi.PyErr_CheckSignals, ctypes.c_void_p).value):
        found = (ctypes.c_void_p * 4)()  # the path of a library, where it lies, and the function's name and place
        _libc().dladdr(ctypes.c_void_p(place), found)
        bases.append(found[1])
    return bases[0] == bases[1]


def _make_default(signum: int) -> None:
    # Not by signal.signal, which is for the main thread. SIG_DFL and no flags are zeros, wherever they stand.
    _libc().sigaction(int(signum), ctypes.create_string_buffer(_LARGE), None)


_LARGE = 512  # Bytes: more than what sigaction(2) fills anywhere.


def _libc() -> Any:
    return ctypes.CDLL(None)


class SignalWatch:
    """Hears of signals though the main thread sits in native code, and has a second one end the process at once.

    Python runs handlers in the main thread alone, and not before what is called there has returned. So a thread of its
    own reads from a pipe into which Python writes the number of each signal as it comes (``signal.set_wakeup_fd``).
    It tells of the first one, and when its echoes are over, it gives all their default action. Ending the process is
    from then on the kernel's affair, for which it waits for nothing.

    What the user, or asyncio, has signals written to gets the numbers, too.

    Args:
        signums: the signals to listen to.
        tell: called with the first one, in the thread.
    """

    def __init__(self, signums: Sequence[int], tell: Callable[[int], None]) -> None:
        global _current
        self._signums = frozenset(map(int, signums))
        self._tell = tell
        self._home = os.getpid()
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._users = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="dowdyboy-signals", daemon=True)
        _current = self
        self._thread.start()

    def note(self, signum: int) -> None:
        """Tells the thread of a signal, in case someone has had them written elsewhere since."""
        with suppress(OSError):
            os.write(self._writing, bytes([signum]))

    def close(self) -> None:
        """Ends the thread."""
        global _current
        if os.getpid() != self._home:  # a child of this process, which has no such thread, comes by
            return
        _current = None
        self._give_back()
        os.write(self._writing, bytes([_OVER]))
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def leave_in_child(self) -> None:
        """Has signals of a process forked from this one not be taken for its own."""
        self._give_back()
        os.close(self._reading)
        os.close(self._writing)

    def _give_back(self) -> None:
        present = signal.set_wakeup_fd(self._users, warn_on_full_buffer=False)
        if present not in (self._writing, -1):  # someone has set it since
            signal.set_wakeup_fd(present, warn_on_full_buffer=False)

    def _run(self) -> None:
        first = self._next(None)
        if first == _OVER:
            return
        assert first is not None
        self._tell(first)
        latest = time.monotonic() + ECHO
        while (left := latest - time.monotonic()) > 0:
            if self._next(left) == _OVER:
                return
        for signum in self._signums:
            _make_default(signum)
        while self._next(None) != _OVER:
            pass  # of those that others handle

    def _next(self, timeout: float | None) -> int | None:
        """The number of the next signal that counts, or ``_OVER``; None where none comes within ``timeout`` seconds."""
        poll = select.poll()  # not select, which takes no descriptor above 1023
        poll.register(self._reading, select.POLLIN)
        while poll.poll(None if timeout is None else 1000 * timeout):
            [number] = os.read(self._reading, 1)
            if number == _OVER:
                return number
            if self._users != -1:
                with suppress(OSError):
                    os.write(self._users, bytes([number]))
            if number in self._signums:
                return int(number)
        return None


_OVER = 0  # which is no signal's number

_current: SignalWatch | None = None  # there is one at a time: only a signal that nobody handles is listened to


def _after_fork_in_child() -> None:
    global _current
    if _current is not None:
        watch, _current = _current, None
        watch.leave_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
