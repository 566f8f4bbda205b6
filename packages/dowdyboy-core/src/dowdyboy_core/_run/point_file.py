"""The points of curves as they lie on the disk: ``metrics.jsonl``, and beside it when each of its lines was logged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from dowdyboy_core._disk.lines import LineFile
from dowdyboy_core.backend.points import Point

_BLOCK = 2**16

# Each time takes as many bytes, so that the file is cut to any number of lines, or filled up, by one call.
_TIME = "{:017.6f}"
_WIDTH = 18
_UNKNOWN = b"0000000000.000000\n"


class PointFile:
    """Lines of JSON, one for each point, and a file of as many times.

    A line is ``{"step": 3, "epoch": 1, "values": {"loss": 0.25}}``; a value that is not finite is written as the
    string ``"nan"``, ``"inf"`` or ``"-inf"``, since JSON has no word for it. The times are not in the lines, since two
    runs that are equal would differ in them.

    Args:
        path: of the lines; the times go to a file of the same name that ends in ``.times``.
        tell: gets a sentence, once for each time that the disk begins to refuse.
        timed: whether to keep the times.
    """

    def __init__(self, path: Path, tell: Callable[[str], None], *, timed: bool) -> None:
        self.lines = LineFile(path, tell, mends=True)
        self._times = LineFile(path.with_suffix(".times"), tell)
        self._timed = timed
        self.unreadable: list[int] = []

    def add(self, point: Point, epoch: int) -> None:
        """Takes a point for the next ``flush``."""
        if self._timed:
            self._times.add(_TIME.format(point.time))
        self.lines.add(_line(point, epoch))

    def flush(self) -> None:
        """Writes what was added, if the disk will have it."""
        if self._timed:
            self._times.flush()  # first: a kill in between leaves a time too many, and no line without one
        self.lines.flush()

    def align(self) -> None:
        """Makes the times as many as the lines, whatever a killed process left; those that are missing are unknown.

        Raises:
            OSError: the file can't be changed.
        """
        if not self._timed and not self._times.path.exists():
            return
        lines, size = _count_lines(self.lines.path), self._times.size()
        if size != lines * _WIDTH:
            whole = min(lines, size // _WIDTH)
            with self._times.path.open("ab") as file:
                file.truncate(whole * _WIDTH)
                for done in range(whole, lines, _BLOCK):
                    file.write(_UNKNOWN * min(_BLOCK, lines - done))

    def cut(self, size: int) -> None:
        """Drops the lines after the first ``size`` bytes.

        Raises:
            OSError: the file can't be changed.
        """
        self.lines.cut(size)

    def read(self, otherwise: float) -> Iterator[Point]:
        """Gives the points; the numbers of the lines that can't be read are in ``unreadable`` afterwards.

        Args:
            otherwise: the time of points whose own isn't known.

        Raises:
            OSError: the file can't be read.
        """
        self.unreadable = []
        with self.lines.path.open("rb") as lines:
            for number, (line, when) in enumerate(zip(lines, self._read_times()), start=1):  # noqa: B905 # it goes on
                try:
                    point = json.loads(line)
                    values = {str(name): float(value) for name, value in point["values"].items()}
                    step = int(point["step"])
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    self.unreadable.append(number)
                    continue
                yield Point(values, step, otherwise if when is None else when)

    def _read_times(self) -> Iterator[float | None]:
        """The times line by line, None where one isn't known, and without an end."""
        if self._times.size():
            with self._times.path.open("rb") as file:
                while content := file.read(_WIDTH):
                    yield _time(content)
        while True:
            yield None


def _time(content: bytes) -> float | None:
    try:
        when = float(content)
    except ValueError:
        return None
    return when if math.isfinite(when) and when > 0 else None


def _count_lines(path: Path) -> int:
    count = 0
    if path.is_file():
        with path.open("rb", buffering=0) as file:
            while content := file.read(_BLOCK):
                count += content.count(b"\n")
    return count


def _line(point: Point, epoch: int) -> str:
    said = {name: value if math.isfinite(value) else str(value) for name, value in point.values.items()}
    return json.dumps({"step": point.step, "epoch": epoch, "values": said}, ensure_ascii=False, allow_nan=False)
