"""Curves: every ``trainer.log`` as a line of ``metrics.jsonl`` and as points in the framework's viewer."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._backend import Point, Tracker
from ._lines import LineFile

FLUSH_INTERVAL = 1.0
"""Seconds that a point may wait in memory."""


class MetricLog:
    """Writes points to ``metrics.jsonl`` and a viewer, about once a second, beside the training.

    A line is ``{"step": 3, "epoch": 1, "values": {"loss": 0.25}}``; a value that is not finite is written as
    the string ``"nan"``, ``"inf"`` or ``"-inf"``, since JSON has no word for it.

    Args:
        path: of ``metrics.jsonl``.
        viewer_folder: where the viewer's files go.
        open_tracker: opens the viewer's writer, if one is wanted.
        warn: tells the user something.
        to_float: reads a tensor; called when points are written, not when they come.
    """

    def __init__(
        self,
        path: Path,
        viewer_folder: Path,
        open_tracker: Callable[[], Tracker | None],
        warn: Callable[[str], None],
        to_float: Callable[[Any], float] = float,
    ) -> None:
        self._file = LineFile(path, warn, mends=True)
        self._viewer_folder = viewer_folder
        self._open_tracker = open_tracker
        self._warn = warn
        self._to_float = to_float
        self._opened = False
        self._tracker: Tracker | None = None
        self._waiting: deque[tuple[Mapping[str, Any], int, int, float]] = deque()
        self._timer: threading.Timer | None = None
        self._writing = threading.Lock()

    def write(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """Adds one point to each named curve; a disk that won't have it is told once, and tried again later."""
        if not self._opened:
            self._open_viewer()
        self._waiting.append((values, step, epoch, time.time()))
        if self._timer is None:
            self._timer = threading.Timer(FLUSH_INTERVAL, self._flush)
            self._timer.daemon = True
            self._timer.start()

    def _flush(self) -> None:
        with self._writing:
            timer, self._timer = self._timer, None  # first, so that a point that comes now is sure to have one
            if timer is not None:
                timer.cancel()
            points = []
            while self._waiting:
                values, step, epoch, when = self._waiting.popleft()
                point = Point({name: self._to_float(value) for name, value in values.items()}, step, when)
                self._file.add(_line(point, epoch))
                points.append(point)
            self._file.flush()
            self._draw(points)

    def _open_viewer(self) -> None:
        self._opened = True
        try:
            self._tracker = self._open_tracker()
        except OSError as error:
            self._lose_viewer(error)

    def _draw(self, points: Sequence[Point]) -> None:
        if self._tracker is not None and points:
            try:
                self._tracker.write(points)
            except Exception as error:  # whatever a viewer minds: it is not worth a run
                self._lose_viewer(error)

    def _lose_viewer(self, error: Exception) -> None:
        self._tracker = None
        self._warn(
            f"The viewer's files in {str(self._viewer_folder)!r} can't be written: {error}. Its curves stop here; "
            "metrics.jsonl has them, and a resumed run draws them anew."
        )

    def size(self) -> int:
        """The length of the file in bytes, with all that was written so far."""
        self._flush()
        return self._file.size()

    def sync(self) -> None:
        """Has the system put the file on the disk itself."""
        self._file.sync()

    def cut_back(self, size: int) -> None:
        """Drops what was written after the file had ``size`` bytes, and has the viewer draw the rest anew.

        No viewer can take points back, and one that was killed may not have written its last ones.
        """
        self.close()
        path = self._file.path
        if not path.exists() and not size:
            return
        if self._file.size() < size:
            self._warn(
                f"{str(path)!r} has {self._file.size()} bytes, and had {size} when the checkpoint was saved: some of "
                "its lines are lost."
            )
        try:
            self._file.cut(size)
            shutil.rmtree(self._viewer_folder, ignore_errors=True)
            self._open_viewer()
            self._draw_anew()
        except OSError as error:
            self._warn(f"{str(path)!r} can't be brought back to where the run goes on: {error}.")

    def _draw_anew(self) -> None:
        if self._tracker is None or not self._file.path.exists():
            return
        points, unreadable = [], []
        with self._file.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    point = json.loads(line)
                    values = {str(name): float(value) for name, value in point["values"].items()}
                    step = int(point["step"])
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    unreadable.append(number)
                    continue
                points.append(Point(values, step, time.time()))
        self._draw(points)
        if unreadable:
            self._warn(
                f"{str(self._file.path)!r} is damaged: {len(unreadable)} lines, the first of them line "
                f"{unreadable[0]}, can't be read and are not drawn."
            )

    def close(self) -> None:
        """Writes out what is left and closes the viewer; a later ``write`` opens it again."""
        self._flush()
        tracker, self._tracker = self._tracker, None
        self._opened = False
        if tracker is not None:
            try:
                tracker.close()
            except OSError as error:
                self._lose_viewer(error)


def _line(point: Point, epoch: int) -> str:
    said = {name: value if math.isfinite(value) else str(value) for name, value in point.values.items()}
    return json.dumps({"step": point.step, "epoch": epoch, "values": said}, ensure_ascii=False, allow_nan=False)


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
