"""Curves: every ``trainer.log`` as a line of ``metrics.jsonl`` and as points in the framework's viewer."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import SEEK_END, FileIO
from pathlib import Path
from typing import Any

from ._backend import Tracker

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
        self._path = path
        self._viewer_folder = viewer_folder
        self._open_tracker = open_tracker
        self._warn = warn
        self._opened = False
        self._pending: list[str] = []  # lines that are not in the file yet
        self._failing = False
        self._tracker: Tracker | None = None
        self._flushed = 0.0

    def write(self, values: Mapping[str, float], step: int, epoch: int) -> None:
        """Adds one point to each named curve; a disk that won't have it is told once, and tried again later."""
        if not self._opened:
            self._open_viewer()
        said = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        line = json.dumps({"step": step, "epoch": epoch, "values": said}, ensure_ascii=False, allow_nan=False)
        self._pending.append(line + "\n")
        if time.monotonic() - self._flushed > FLUSH_INTERVAL:
            self._flush()
        self._draw(values, step)

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if not self._pending:
            return
        try:
            # By its path each time, since the folder may have vanished and come back.
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                _append(file, "".join(self._pending).encode())
        except OSError as error:
            if not self._failing:
                self._warn(f"{str(self._path)!r} can't be written: {error}. Its lines are kept until it can be.")
            self._failing = True
            return
        self._pending.clear()
        self._failing = False

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
        try:
            return self._path.stat().st_size
        except OSError:  # there is none
            return 0

    def sync(self) -> None:
        """Has the system put the file on the disk itself; where it can't, writing has told so, or the disk has gone."""
        with suppress(OSError), self._path.open("rb") as file:
            os.fsync(file.fileno())

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
        self._open_viewer()
        if self._tracker is not None:
            with self._path.open(encoding="utf-8") as lines:
                for line in map(json.loads, lines):
                    self._draw({name: float(value) for name, value in line["values"].items()}, line["step"])

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


def _append(file: FileIO, content: bytes) -> None:
    """Adds ``content`` to a file whole, or not at all if the disk won't have it."""
    start = file.seek(0, SEEK_END)
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(start)
        raise


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
