"""A writer of curves, for want of a viewer: lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dowdyboy_core import Point


class JsonLinesTracker:
    """Appends ``{"curve": name, "step": step, "value": value}`` to ``curves.jsonl``, a line for each point.

    Args:
        folder: where the file goes.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "curves.jsonl").open("a", encoding="utf-8")

    def write(self, points: Sequence[Point]) -> None:
        """Adds points to the curves."""
        for point in points:
            for name, value in point.values.items():
                self._file.write(json.dumps({"curve": name, "step": point.step, "value": value}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Writes out what is left and closes the file."""
        self._file.close()
