"""Curves: every ``trainer.log`` as a line of ``metrics.jsonl`` and as points in the framework's viewer."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from ._backend import Tracker

FLUSH_INTERVAL = 1.0
"""Seconds that a line may wait in memory."""


class MetricLog:
    """Writes points to ``metrics.jsonl`` and a viewer.

    A line is ``{"step": 3, "epoch": 1, "values": {"loss": 0.25}}``; a value that is not finite is written as
    the string ``"nan"``, ``"inf"`` or ``"-inf"``, since JSON has no word for it.
    """

    def __init__(self, path: Path, viewer_folder: Path, open_tracker: Callable[[], Tracker | None]) -> None:
        self._path = path
        self._viewer_folder = viewer_folder
        self._open_tracker = open_tracker
        self._file: TextIO | None = None
        self._tracker: Tracker | None = None
        self._flushed = 0.0

    def write(self, values: Mapping[str, float], step: int, epoch: int) -> None:
        """Adds one point to each named curve."""
        if self._file is None:
            self._tracker = self._tracker or self._open_tracker()
            self._file = self._path.open("a", encoding="utf-8")
        said = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        line = json.dumps({"step": step, "epoch": epoch, "values": said}, ensure_ascii=False, allow_nan=False)
        self._file.write(line + "\n")
        now = time.monotonic()
        if now - self._flushed > FLUSH_INTERVAL:
            self._file.flush()
            self._flushed = now
        if self._tracker is not None:
            self._tracker.write(values, step)

    def size(self) -> int:
        """The length of the file in bytes, with all that was written so far."""
        if self._file is not None:
            self._file.flush()
        return self._path.stat().st_size if self._path.exists() else 0

    def cut_back(self, size: int) -> None:
        """Drops what was written after the file had ``size`` bytes, and has the viewer draw the rest anew.

        No viewer can take points back, and one that was killed may not have written its last ones.
        """
        self.close()
        if not self._path.exists():
            return
        if self._path.stat().st_size > size:
            with self._path.open("r+b") as file:
                file.truncate(size)
        shutil.rmtree(self._viewer_folder, ignore_errors=True)
        self._tracker = self._open_tracker()
        if self._tracker is not None:
            with self._path.open(encoding="utf-8") as lines:
                for line in map(json.loads, lines):
                    values = {name: float(value) for name, value in line["values"].items()}
                    self._tracker.write(values, line["step"])

    def close(self) -> None:
        """Closes the files; a later ``write`` opens them again."""
        file, self._file = self._file, None
        tracker, self._tracker = self._tracker, None
        if file is not None:
            file.close()
        if tracker is not None:
            tracker.close()


def as_number(value: Any, to_float: Callable[[Any], float]) -> float | None:
    """A number, NumPy scalar or one-element tensor as a float; None if it is nothing of the kind."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if getattr(value, "ndim", None) == 0 or getattr(value, "size", None) == 1 or hasattr(value, "numel"):
        try:
            return to_float(value)
        except (TypeError, ValueError, RuntimeError):
            return None
    return None
