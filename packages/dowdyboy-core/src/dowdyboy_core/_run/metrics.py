"""Curves: every ``trainer.log`` as a line of ``metrics.jsonl`` and as points in the framework's viewer."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from dowdyboy_core.backend.points import Point, Tracker

from .curves import Curves
from .point_file import PointFile

FLUSH_INTERVAL = 1.0
"""Seconds that a point may wait in memory."""


class MetricLog:
    """Writes points to ``metrics.jsonl`` and a viewer, about once a second, beside the training.

    Args:
        path: of ``metrics.jsonl``.
        viewer_folder: where the viewer's files go.
        open_tracker: makes the viewer's writer; None where none is wanted.
        warn: tells the user something.
        to_float: reads a tensor; called when points are written, not when they come.
        alone: gives a context, and in it whether no other process writes these files.
        waits: keep points in memory until a fit begins or all is closed: a run that goes on may have them already.
    """

    def __init__(
        self,
        path: Path,
        viewer_folder: Path,
        open_tracker: Callable[[], Tracker | None] | None,
        warn: Callable[[str], None],
        to_float: Callable[[Any], float] = float,
        alone: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
        *,
        waits: bool = False,
    ) -> None:
        self._file = PointFile(path, warn, timed=open_tracker is not None)
        self._curves = Curves(viewer_folder, open_tracker or (lambda: None), warn)
        self._warn = warn
        self._to_float = to_float
        self._alone = alone
        self._waits = waits
        self._opened = False
        self._known_size: int | None = None
        self._waiting: deque[tuple[Mapping[str, Any], int, int, float]] = deque()
        self._timer: threading.Timer | None = None
        self._writing = threading.Lock()

    def write(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """Adds one point to each named curve; a disk that won't have it is told once, and tried again later."""
        if not self._opened and not self._waits:
            self._open()
        self._waiting.append((values, step, epoch, time.time()))
        if self._timer is None and not self._waits:
            self._timer = threading.Timer(FLUSH_INTERVAL, self._flush)
            self._timer.daemon = True
            self._timer.start()

    def _open(self) -> None:
        """Has the files ready for points that come without a fit, in which another process may be writing."""
        self._curves.open()
        self._opened = True
        with self._alone() as alone:
            self._file.lines.mends = alone
            if alone:
                self._ready()

    def _ready(self) -> None:
        try:
            self._file.align()
        except OSError as error:
            self._warn(f"When points were logged can't be kept: {error}.")
        self._curves.mend()

    def _flush(self) -> None:
        with self._writing:
            timer, self._timer = self._timer, None  # first, so that a point that comes now is sure to have one
            if timer is not None:
                timer.cancel()
            points = []
            while self._waiting:
                values, step, epoch, when = self._waiting.popleft()
                point = Point({name: self._to_float(value) for name, value in values.items()}, step, when)
                self._file.add(point, epoch)
                points.append(point)
            self._file.flush()
            self._curves.draw(points)

    def _release(self) -> None:
        """Writes out what has waited for a fit, too."""
        self._waits = False
        if self._waiting and not self._opened:
            self._open()
        self._flush()

    def size(self) -> int:
        """The length of the file in bytes, with all that was written so far."""
        self._flush()
        return self._file.lines.size()

    def sync(self) -> None:
        """Has the system put the file on the disk itself."""
        self._file.lines.sync()

    def go_on(self) -> None:
        """Has a run that begins anew draw behind what is there, once the viewer has all of that."""
        if not self._waits:
            self._flush()
        if self._curves.lost or self._file.lines.size() not in (0, self._known_size):
            self._catch_up(again=False)
        self._release()

    def cut_back(self, size: int) -> None:
        """Drops what was written after the file had ``size`` bytes, and has the viewer go on from there, too."""
        lines = self._file.lines
        if size or not self._waits:
            with self._writing:
                self._waiting.clear()  # which would be dropped, too, and be in the viewer
        if lines.path.exists() or size:
            self._cut_back(size)
        self._release()

    def _cut_back(self, size: int) -> None:
        lines = self._file.lines
        whole = lines.size() >= size
        if not whole:
            self._warn(
                f"{str(lines.path)!r} has {lines.size()} bytes, and had {size} when the checkpoint was saved: some of "
                "its lines are lost."
            )
        try:
            self._file.cut(size)
        except OSError as error:
            self._warn(f"{str(lines.path)!r} can't be brought back to where the run goes on: {error}.")
        else:
            self._catch_up(again=whole)

    def _catch_up(self, *, again: bool) -> None:
        """Has the viewer show what is in the file; ``again`` says whether what it has besides is computed again."""
        with self._writing:
            self._curves.reopen()
            self._curves.open()
            self._opened = self._file.lines.mends = True
            self._ready()
            if self._file.lines.path.is_file():
                self._curves.catch_up(self._file.read(otherwise=time.time()), again=again)
        if self._file.unreadable:
            self._warn(
                f"{str(self._file.lines.path)!r} is damaged: {len(self._file.unreadable)} lines, the first of them "
                f"line {self._file.unreadable[0]}, can't be read and are not drawn."
            )

    def settle(self) -> None:
        """Tells that a fit has come to its end, and nothing of it is to come."""
        self._flush()
        with self._writing:
            self._curves.settle()

    def close(self) -> None:
        """Writes out what is left and closes the viewer; a later ``write`` goes on in it."""
        self._release()
        with self._writing:
            self._curves.close()
            self._known_size = self._file.lines.size()
