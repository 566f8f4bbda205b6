"""How long a fit may take: it is to be saved before a job's limit ends it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """Whether the time of a fit is up: where there is less of it than the way to this place took from the last one.

    Args:
        seconds: how long a fit may take; None for as long as it likes.
        clock: tells the time.
    """

    def __init__(self, seconds: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._ends: float | None = None
        self._since = 0.0

    def begin(self) -> None:
        """Begins a fit."""
        if self._seconds is not None:
            self._ends = self._clock() + self._seconds

    def begin_phase(self) -> None:
        """Tells that places follow, one after another: what lies before is no measure for them."""
        if self._seconds is not None:
            self._since = self._clock()

    def is_over(self) -> bool:
        """Asked at each place where the run could end: whether it has to, since the next one may be too late."""
        if self._ends is None:
            return False
        now = self._clock()
        took, self._since = now - self._since, now
        return now + took > self._ends
