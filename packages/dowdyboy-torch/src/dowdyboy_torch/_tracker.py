"""TensorBoard's files."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dowdyboy_core import Point, SetupError
from dowdyboy_core._lines import append_whole

_numbers = itertools.count()


class TensorBoardTracker:
    """Writes curves for TensorBoard, many points at a time, with the messages and the framing of its own package.

    Its writers would hand over each point to a thread of theirs, which takes three times as long; and torch's drops
    what the disk won't have.

    Args:
        folder: where the event file goes.

    Raises:
        SetupError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise SetupError(
                f"log_with='tensorboard' needs TensorBoard, which can't be imported: {error}. "
                "Run `pip install tensorboard`, or set log_with='none'."
            ) from error
        self._event: Any = Event
        self._summary: Any = Summary
        self._records: Any = RecordWriter
        begun = time.time()
        self._path = (
            folder / f"events.out.tfevents.{begun:010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._path.touch(exist_ok=False)
        self._append([Event(wall_time=begun, file_version="brain.Event:2")])

    def write(self, points: Sequence[Point]) -> None:
        """Adds points to the curves."""
        self._append(map(self._event_of, points))

    def _event_of(self, point: Point) -> Any:
        value = self._summary.Value
        summary = self._summary(value=[value(tag=name, simple_value=item) for name, item in point.values.items()])
        return self._event(wall_time=point.time, step=point.step, summary=summary)

    def _append(self, events: Iterator[Any] | list[Any]) -> None:
        content = io.BytesIO()
        framed = self._records(content)
        for event in events:
            framed.write(event.SerializeToString())
        with self._path.open("r+b", buffering=0) as file:
            append_whole(file, content.getvalue())

    def close(self) -> None:
        """Nothing is left to write, and no file is open."""
