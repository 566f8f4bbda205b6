"""Curves: every ``trainer.log`` as a line of ``metrics.jsonl`` and as points in the framework's viewer."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ._backend import Tracker
from ._lines import LineFile

FLUSH_INTERVAL = 1.0
"""Seconds that a line may wait in memory."""


class MetricLog:
    """Writes points to ``metrics.jsonl`` and a viewer.

    A line is ``{"step": 3, "epoch": 1, "values": {"loss": 0.25}}``; a value that is not finite is written as
    the string ``"nan"``, ``"inf"`` or ``"-inf"``, since JSON has no word for it.
    """

    def __init__(
        self,
        path: Path,
        viewer_folder: Path,
        open_tracker: Callable[[], Tracker | None],
        warn: Callable[[str], None],
    ) -> None:
        self._file = LineFile(path, warn, mends=True)
        self._viewer_folder = viewer_folder
        self._open_tracker = open_tracker
        self._warn = warn
        self._opened = False
        self._tracker: Tracker | None = None
        self._flushed = 0.0

    def write(self, values: Mapping[str, float], step: int, epoch: int) -> None:
        """Adds one point to each named curve; a disk that won't have it is told once, and tried again later."""
        if not self._opened:
            self._open_viewer()
        said = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        line = {"step": step, "epoch": epoch, "values": said}
        self._file.add(json.dumps(line, ensure_ascii=False, allow_nan=False))
        if time.monotonic() - self._flushed > FLUSH_INTERVAL:
            self._flush()
        self._draw(values, step)

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        self._file.flush()

    def _open_viewer(self) -> None:
        self._opened = True
        try:
            self._tracker = self._open_tracker()
        except OSError as error:
            self._lose_viewer(error)

    def _draw(self, values: Mapping[str, float], step: int) -> None:
        if self._tracker is not None:
            try:
                self._tracker.write(values, step)
            except OSError as error:
                self._lose_viewer(error)

    def _lose_viewer(self, error: OSError) -> None:
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
        unreadable = []
        with self._file.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    point = json.loads(line)
                    values = {str(name): float(value) for name, value in point["values"].items()}
                    step = int(point["step"])
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    unreadable.append(number)
                    continue
                self._draw(values, step)
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
