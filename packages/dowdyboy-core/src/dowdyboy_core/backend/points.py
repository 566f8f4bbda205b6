"""What a writer for a viewer of curves is, and what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class Point(NamedTuple):
    """One value of each of some curves.

    Attributes:
        values: the values by the names of their curves.
        step: where on the axis they stand.
        time: when they were logged, in seconds since 1970.
    """

    values: Mapping[str, float]
    step: int
    time: float


class Drawn(NamedTuple):
    """One point of one curve as a viewer's files hold it.

    Attributes:
        curve: the name under which it lies there, which may differ from the one that was logged.
        step: where on the axis it stands.
        value: the value, as precisely as it is kept there.
    """

    curve: str
    step: int
    value: float


class Tracker(Protocol):
    """A writer for a viewer of curves. Its methods are called by one thread at a time, but not always the same one."""

    def write(self, points: Sequence[Point]) -> None:
        """Adds points, so that they are in the viewer's files when this returns.

        Raises:
            OSError: the disk won't have them.
        """

    def close(self) -> None:
        """Closes the files; a later ``write`` goes on in them."""


@runtime_checkable
class LocalTracker(Tracker, Protocol):
    """A writer of files that can be read again, so that a run which goes on draws nothing twice.

    It knows its files by their names, and neither reads nor changes any other in the folder.
    """

    def mend(self) -> None:
        """Makes the files fit to be gone on with, where a process was killed while it wrote.

        Raises:
            OSError: the disk won't have it.
        """

    def form(self, point: Point) -> Sequence[Drawn]:
        """What ``write`` makes of a point: as many as it has values, and in their order."""

    def held(self) -> Iterator[Drawn]:
        """What the files hold now, in the order in which it was written.

        Raises:
            OSError: they can't be read.
        """

    def take_back(self, count: int) -> None:
        """Has the viewer show the first ``count`` of what is held, and what is written from now on, and nothing else.

        Raises:
            OSError: the disk won't have it.
        """
