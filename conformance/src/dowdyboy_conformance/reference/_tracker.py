"""A writer of curves, for want of a viewer: lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from dowdyboy_core import Point
from dowdyboy_core.backend import Drawn


class JsonLinesTracker:
    """Appends ``{"curve": name, "step": step, "value": value}`` to ``curves.jsonl``, a line for each point.

    Args:
        folder: where the file goes.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "curves.jsonl"

    def write(self, points: Sequence[Point]) -> None:
        """Adds points to the curves."""
        self._path.parent.resolve().mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            for point in points:
                for curve, step, value in self.form(point):
                    file.write(json.dumps({"curve": curve, "step": step, "value": value, "time": point.time}) + "\n")

    def form(self, point: Point) -> list[Drawn]:
        """What ``write`` makes of a point."""
        return [Drawn(name, point.step, value) for name, value in point.values.items()]

    def mend(self) -> None:
        """Drops half a line at the end."""
        if self._path.exists():
            content = self._path.read_bytes()
            self._cut(content.rfind(b"\n") + 1)

    def held(self) -> Iterator[Drawn]:
        """The points in the file."""
        if self._path.exists():
            for line in self._path.read_bytes().splitlines():
                item = json.loads(line)
                yield Drawn(item["curve"], item["step"], item["value"])

    def take_back(self, count: int) -> None:
        """Cuts the file behind the first points."""
        lines = self._path.read_bytes().splitlines(keepends=True)
        self._cut(sum(map(len, lines[:count])))

    def _cut(self, size: int) -> None:
        with self._path.open("r+b") as file:
            file.truncate(size)

    def close(self) -> None:
        """Nothing is left to write, and no file is open."""
