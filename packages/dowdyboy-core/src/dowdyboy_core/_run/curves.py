"""Curves in a viewer: what its files hold already isn't drawn again, and what another run drew isn't gone on with."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dowdyboy_core.backend.points import Drawn, LocalTracker, Point, Tracker

_BLOCK = 10_000
"""Points that are drawn at once where there are many."""


class _Differs(Exception):
    """What a viewer's files hold isn't what this run has drawn."""


class Curves:
    """Has a viewer show each point once.

    A run that goes on from a checkpoint computes again what it had computed behind it, and to the last bit: those
    points are in the viewer's files already. A viewer that is open takes nothing back, so they stay, and what comes is
    compared with them. Only what isn't there is drawn, and only where something differs are the files begun anew.

    Args:
        folder: where the viewer's files go.
        open_tracker: makes the viewer's writer, if one is wanted.
        warn: tells the user something.

    Attributes:
        lost: whether the viewer was given up, since its files could not be written.
    """

    def __init__(self, folder: Path, open_tracker: Callable[[], Tracker | None], warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._open_tracker = open_tracker
        self._warn = warn
        self._opened = False
        self.lost = False
        self._tracker: Tracker | None = None
        self._held: _Held | None = None  # what the files hold and this run hasn't drawn yet

    def open(self) -> None:
        """Makes the viewer's writer, unless that has been done.

        Raises:
            SetupError: the viewer's package is not installed.
        """
        if not self._opened:
            try:
                self._tracker = self._open_tracker()
            except OSError as error:
                self._lose(error)
            self._opened = True

    def mend(self) -> None:
        """Makes the viewer's files fit to be gone on with; only where no other process writes them."""
        if isinstance(self._tracker, LocalTracker):
            try:
                self._tracker.mend()
            except OSError as error:
                self._lose(error)

    def reopen(self) -> None:
        """Tries it with a viewer again that was given up."""
        if self.lost:
            self._opened = self.lost = False

    def draw(self, points: Sequence[Point]) -> None:
        """Adds points to the curves, but for those that are there."""
        if self._tracker is None or not points:
            return
        try:
            new = points if self._held is None else self._missing(self._held, points)
            if new:
                self._tracker.write(new)
        except Exception as error:  # whatever a viewer minds: it is not worth a run
            self._lose(error)

    def catch_up(self, points: Iterable[Point], *, again: bool) -> None:
        """Draws what the viewer lacks of some points, which begin with what it was given first.

        Args:
            points: all that are to be shown now.
            again: whether what the viewer holds besides is computed again from here on. Otherwise it stays as it is.
        """
        tracker = self._tracker
        if not isinstance(tracker, LocalTracker):
            return
        try:
            self._held = _Held(tracker, forgiving=not again)
            for block in _blocks(points):
                if self._held is None:
                    tracker.write(block)
                else:
                    new = self._missing(self._held, block)
                    if new:
                        tracker.write(new)
        except _Differs:
            self._held = None  # a file that someone has changed, in which this run has nothing to put right
        except Exception as error:  # as in draw
            self._lose(error)
        if not again:
            self._held = None
        elif self._held is not None:
            self._held.names.clear()

    def _missing(self, held: _Held, points: Sequence[Point]) -> Sequence[Point]:
        """Those of the points that aren't in the viewer's files, and neither are those that follow them."""
        for place, point in enumerate(points):
            same = held.compare(point)
            if same == len(point.values):
                continue
            self._held = None
            if held.differs is not None:
                self._begin_anew(held, _difference(*held.differs))
                return points[place:]
            rest = dict(itertools.islice(point.values.items(), same, None))  # a kill may leave a part of a point
            return [point._replace(values=rest), *points[place + 1 :]]
        return []

    def settle(self) -> None:
        """Tells that a fit has come to its end: what the viewer has beyond it in its curves isn't of this run."""
        held = self._held
        if held is None or self._tracker is None:
            return
        try:
            beyond = held.beyond()
            if beyond is not None:
                self._held = None
                self._begin_anew(held, f"it has ended, and {beyond.curve!r} went on to step {beyond.step}")
        except Exception as error:  # as in draw
            self._lose(error)

    def _begin_anew(self, held: _Held, said: str) -> None:
        self._warn(
            f"This run differs from the one whose curves are in {str(self._folder)!r}: {said}. From there on they are "
            "drawn anew, in a file of their own. A viewer that is open may show both until it is started again."
        )
        held.tracker.take_back(held.agreed)

    def _lose(self, error: Exception) -> None:
        self._tracker = self._held = None
        self.lost = True
        self._warn(
            f"The viewer's files in {str(self._folder)!r} can't be written: {error}. Its curves stop here; "
            "metrics.jsonl has them, and a resumed run draws them anew."
        )

    def close(self) -> None:
        """Closes the viewer's files; ``draw`` goes on in them."""
        if self._tracker is not None:
            try:
                self._tracker.close()
            except OSError as error:
                self._lose(error)


class _Held:
    """What a viewer's files hold, compared point by point with what a run draws, and read no faster than that.

    Attributes:
        tracker: whose files they are.
        agreed: how many at the beginning are those of the run.
        differs: what the first other one is, and what the run has instead.
        names: the curves of what was compared.
    """

    def __init__(self, tracker: LocalTracker, *, forgiving: bool) -> None:
        self.tracker = tracker
        self.agreed = 0
        self.differs: tuple[Drawn, Drawn] | None = None
        self.names: set[str] = set()
        self._forgiving = forgiving
        self._items: Iterator[Drawn] = tracker.held()
        self._read: deque[Drawn] = deque()

    def compare(self, point: Point) -> int:
        """How many of a point's values follow in the files.

        Raises:
            _Differs: another one follows, and that is to be borne with.
        """
        forms = self.tracker.form(point)
        self._fill(len(forms))
        for place, form in enumerate(forms):
            if place == len(self._read):  # they end here
                self.agreed += place
                return place
            if not _same(self._read[place], form):
                if self._forgiving:
                    raise _Differs
                self.differs = self._read[place], form
                return place
            self.names.add(form.curve)
        self.agreed += len(forms)
        for _ in forms:
            self._read.popleft()
        return len(forms)

    def _fill(self, count: int) -> None:
        self._read.extend(itertools.islice(self._items, max(0, count - len(self._read))))

    def beyond(self) -> Drawn | None:
        """The last of what follows in the curves that the run has drawn, too; None if there is nothing."""
        self._read.extend(self._items)
        return next((item for item in reversed(self._read) if item.curve in self.names), None)


def _same(one: Drawn, other: Drawn) -> bool:
    equal = one.value == other.value or (one.value != one.value and other.value != other.value)  # NaN equals nothing
    return equal and one.step == other.step and one.curve == other.curve


def _difference(found: Drawn, new: Drawn) -> str:
    if (found.curve, found.step) == (new.curve, new.step):
        return f"{new.curve!r} at step {new.step} is {new.value:.9g} and was {found.value:.9g}"
    return f"{new.curve!r} at step {new.step} comes where {found.curve!r} at step {found.step} came"


def _blocks(points: Iterable[Point]) -> Iterator[list[Point]]:
    left = iter(points)
    while block := list(itertools.islice(left, _BLOCK)):
        yield block
