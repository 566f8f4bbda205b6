"""Signals that stop a run: noted when they come, heeded between two batches, in all processes between the same two."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dowdyboy_core.backend.signals import ECHO, TIME_IS_UP, SignalWatch, end_by, handled, stopping_signals, tell

from .deadline import Deadline

PERIOD = 0.5
"""Seconds from one time to the next that several processes ask one another whether to stop.

To ask takes some tenths of a millisecond, so that doing it after every batch would be felt where batches are short.
"""


class _Pace:
    """How many batches lie between two questions: as many as take about ``PERIOD``, in all processes equally many."""

    def __init__(self) -> None:
        self._interval = self._left = 1
        self.begin()

    def begin(self) -> None:
        """Begins to measure: what lies before is no time of batches."""
        self._done, self._since = 0, time.monotonic()

    def is_over(self) -> bool:
        """Counts a batch; whether it is time for a question."""
        self._done += 1
        self._left -= 1
        return self._left <= 0

    def wanted(self) -> int:
        """The interval that suits this process."""
        if not self._done:
            return self._interval
        spent = max(time.monotonic() - self._since, 1e-6)
        return max(1, min(2 * self._interval, int(self._done * PERIOD / spent)))

    def settle(self, interval: int) -> None:
        """Begins an interval that all processes agree on."""
        self._interval = self._left = interval
        self.begin()


class Stopping:
    """Whether to stop, and when.

    Args:
        largest: gives for each place the largest of the numbers that the processes give.
        rank: the number of this process.
        world_size: how many there are.
        seconds: how long a fit may take, by the clock of the first process; None for as long as it likes.

    Attributes:
        wished: whether this process wants the run saved where all of them can.

    Raises:
        ConfigError: the environment names signals that can't stop a run.
    """

    def __init__(
        self,
        largest: Callable[[Sequence[int]], Sequence[int]],
        rank: int,
        world_size: int,
        seconds: int | None = None,
    ) -> None:
        self._largest = largest
        self._alone = world_size == 1
        self._tells = rank == 0
        self._deadline = Deadline(seconds if rank == 0 else None)
        self._signals = stopping_signals(os.environ)
        self._watch: SignalWatch | None = None
        self._watched = False
        self._home = os.getpid()
        self._received: int | None = None
        self._since = 0.0
        self._asked = False
        self._verdict: int | None = None
        self._requested = False  # in this process
        self._ends = False  # as all processes have agreed
        self.wished = False
        self._agreed = False
        self._paces = {"train": _Pace(), "val": _Pace()}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Notes signals instead of ending the process; a second after the first one, one more ends it at once.

        A handler of the user's own stays in force, and so does ignoring a signal. Only the main thread can listen.
        """
        self._received = None
        self._requested = self._ends = False
        self._deadline.begin()
        with handled(self._signals, self._note) as taken:
            self._watched = bool(taken) and os.name == "posix"
            if self._watched:
                self._watch = SignalWatch(taken, self._tell)
                if self._received is not None:  # before there was a watch
                    self._watch.note(self._received)
            try:
                yield
            finally:
                if self._watch is not None:
                    watch, self._watch = self._watch, None
                    watch.close()

    def _note(self, signum: int, frame: Any) -> None:
        if os.getpid() != self._home:  # forked from here
            if signum != signal.SIGINT:
                end_by(signum)
        elif self._received is None:
            self._received, self._since = signum, time.monotonic()
            if self._watch is not None:
                self._watch.note(signum)
            else:
                self._tell(signum)
        # With a watch, what comes here after the first one is its echo, however late: native code may have kept it.
        elif not self._watched and time.monotonic() - self._since > ECHO:
            end_by(signum)

    def _tell(self, signum: int) -> None:
        if self._tells:
            tell(signum)

    @property
    def received(self) -> int | None:
        """The number of the first signal that came to this process."""
        return self._received

    def request(self) -> None:
        """Asks for an end in order: not here and now, but where all processes know of it."""
        self._requested = True
        self._ends |= self._alone

    @property
    def ends(self) -> bool:
        """Whether the running epoch is to be the last: in all processes from the same batch on."""
        return self._ends

    def ends_after_epoch(self) -> bool:
        """The same at the end of an epoch, where every process asks."""
        if not self._ends and not self._alone:
            self._ends = bool(self._largest((int(self._requested),))[0])
        return self._ends

    def at_end(self) -> int | None:
        """The number of the signal that has come to any process; every process asks at the end of its work."""
        return self._received if self._alone else self._ask("train", done=True, finished=True)[0]

    def after_batch(self, phase: str) -> int | None:
        """The number of the signal to stop for now, or ``TIME_IS_UP``; every process asks after each of its batches."""
        if self._alone:
            return TIME_IS_UP if self._deadline.is_over() else self._received
        self.ask(phase)
        self._asked = False
        return self._verdict

    def agreed_to_save(self) -> bool:
        """Whether a process has wished for it, as far as all of them know."""
        return self.wished if self._alone else self._agreed

    def forget_wishes(self) -> None:
        """Begins anew: all have saved, or the run is over."""
        self.wished = self._agreed = False

    def begin(self, phase: str) -> None:
        """Tells that batches follow, one after another."""
        self._paces[phase].begin()
        self._deadline.begin_phase()

    def ask(self, phase: str) -> None:
        """Asks the other processes for this batch if it is time to, once, for ``after_batch`` to tell.

        In training this is done between forward and backward. Where processes have drifted apart, one may be waiting
        for gradients that another one does not send; the other learns so from its framework in the next forward, and
        would not if it waited here before.
        """
        if self._alone or self._asked:
            return
        self._asked = True
        self._verdict = self._ask(phase, done=False)[0] if self._paces[phase].is_over() else None

    def after_all(self, phase: str) -> int | None:
        """The same at the end of a phase in which some processes have more batches than others."""
        if self._alone:
            return None
        while True:
            signum, all_done = self._ask(phase, done=True)
            if signum is not None or all_done:
                return signum

    def _ask(self, phase: str, *, done: bool, finished: bool = False) -> tuple[int | None, bool]:
        pace = self._paces[phase]
        late = self._deadline.is_over() and not finished  # which no time can be too short for
        asked = TIME_IS_UP if late else self._received or 0, -pace.wanted(), not done, self._requested, self.wished
        signum, shortest, going_on, ends, wished = self._largest(asked)
        self._ends |= bool(ends)
        self._agreed |= bool(wished)
        pace.settle(-shortest)
        return signum or None, not going_on
