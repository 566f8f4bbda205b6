"""TensorBoard's files."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dowdyboy_core import Point, SetupError
from dowdyboy_core.backend import Drawn, Frame, append_whole, as_float32, cut_file, read_records

_ANY = re.compile(r".*tfevents\.(\d+)\..*")
_OURS = re.compile(r"events\.out\.tfevents\.\d+\.dowdyboy\.(\d+)")
_FRAME = Frame(before=4, after=4)  # checksums of the length and of the record


class TensorBoardTracker:
    """Writes curves for TensorBoard, many points at a time, with the messages and the framing of its own package.

    Its writers would hand over each point to a thread of theirs, which takes three times as long; torch's drops what
    the disk won't have, and two that begin in the same second share a file. TensorBoard reads all files of a folder as
    one run, in the order of their names, and may read no more of a file once there is a later one: so each process
    that draws something begins a file of its own.

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
        self._folder = folder
        self._path: Path | None = None

    def write(self, points: Sequence[Point]) -> None:
        """Adds points to the curves."""
        if self._path is None or not self._path.exists():
            self._folder.resolve().mkdir(
                parents=True, exist_ok=True
            )  # resolved: it may be a link to what isn't there yet
            self._path = self._next()
        content = io.BytesIO()
        framed = self._records(content)
        with self._path.open("ab", buffering=0) as file:
            if not file.seek(0, io.SEEK_END):
                framed.write(self._event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            for point in points:
                framed.write(self._event_of(point).SerializeToString())
            append_whole(file, content.getvalue())

    def _event_of(self, point: Point) -> Any:
        value = self._summary.Value
        items = [value(tag=curve, simple_value=item) for curve, _, item in self.form(point)]
        return self._event(wall_time=point.time, step=point.step, summary=self._summary(value=items))

    def form(self, point: Point) -> list[Drawn]:
        """What ``write`` makes of a point."""
        return [Drawn(name, point.step, as_float32(item)) for name, item in point.values.items()]

    def mend(self) -> None:
        """Nothing: no file of another process is gone on with, and what comes in the next one is read all the same."""

    def held(self) -> Iterator[Drawn]:
        """The points in all files of ours."""
        for path in self._ours():
            for items, _ in self._read(path):
                yield from items

    def take_back(self, count: int) -> None:
        """Cuts the files behind the first points; what comes now goes to a new one.

        An open viewer has read on, which is why nothing is added to them, and none is removed. The last one is cut
        first: so a kill in between leaves the beginning of what there was, as any kill does.
        """
        cuts = []
        for path in self._ours():
            end = 0
            for items, end_of_record in self._read(path):
                if items and count < len(items):
                    count = 0  # nothing that follows is kept, not even what would fit
                    break
                count -= len(items)
                end = end_of_record
            cuts.append((path, end))
        for path, end in reversed(cuts):
            cut_file(path, end)
        self._path = None

    def _read(self, path: Path) -> Iterator[tuple[list[Drawn], int]]:
        """The points of each record, with the place in the file where it ends, as far as it can be read."""
        for content, end in read_records(path, _FRAME):
            try:
                event = self._event.FromString(content)
            except Exception:  # of protobuf, which is called by another name in each of its versions
                return
            items = [item for item in event.summary.value if item.HasField("simple_value")]
            yield [Drawn(item.tag, event.step, item.simple_value) for item in items], end

    def _ours(self) -> list[Path]:
        """The files of all runs in the order in which they were written, which is that of their names."""
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _OURS.fullmatch(path.name))

    def _next(self) -> Path:
        """The path of a file that comes after all that are there, whatever the clock says."""
        begun = [int(found[1]) for path in self._folder.iterdir() if (found := _ANY.fullmatch(path.name))]
        number = max((int(_OURS.fullmatch(path.name)[1]) for path in self._ours()), default=0) + 1  # type: ignore[index]
        return self._folder / f"events.out.tfevents.{max([int(time.time()), *begun]):010d}.dowdyboy.{number:04d}"

    def close(self) -> None:
        """Nothing is left to write, and no file is open."""
