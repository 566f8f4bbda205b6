"""VisualDL's files."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dowdyboy_core import Point, SetupError
from dowdyboy_core.backend import Drawn, Frame, append_whole, as_float32, cut_file, mend_file, read_records

_OURS = re.compile(r"vdlrecords\.dowdyboy\.(\d+)\.log")
_UNFINISHED = ".unfinished-dowdyboy"
_FRAME = Frame()


class VisualDLTracker:
    """Writes curves for VisualDL, many points at a time, with the messages and the framing of its own package.

    Its writer would hand over each point to a thread of its own, which takes longer, drops what the disk won't have,
    and goes on behind half a record that nothing can read. Its server shows one file of each folder, the one whose
    name comes last in the alphabet: so all points of all runs are in one file, whose name comes after those that its
    own writer gives. A server that has opened a file reads on where it was: so what was shown only grows, and stays.

    Args:
        folder: where the record file goes.

    Raises:
        SetupError: VisualDL is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from visualdl.component.base_component import meta_data, scalar
            from visualdl.proto.record_pb2 import Record
            from visualdl.writer.record_writer import RecordWriter
        except ImportError as error:
            raise SetupError(
                f"log_with='visualdl' needs VisualDL, which can't be imported: {error}. "
                "Run `pip install visualdl`, or set log_with='none'."
            ) from error
        self._scalar: Any = scalar
        self._meta_data: Any = meta_data
        self._record: Any = Record
        self._records: Any = RecordWriter
        self._folder = folder
        self._path: Path | None = None

    def write(self, points: Sequence[Point]) -> None:
        """Adds points to the curves; VisualDL takes no ``%`` in a name, and gets ``pct`` instead."""
        if self._path is None or not self._path.exists():
            self._folder.resolve().mkdir(
                parents=True, exist_ok=True
            )  # resolved: it may be a link to what isn't there yet
            self._path = self._newest() or self._numbered(1)
        content = io.BytesIO()
        framed = self._records(content)
        with self._path.open("ab", buffering=0) as file:
            if not file.seek(0, io.SEEK_END):
                begun = round(time.time() * 1000)
                framed.write(
                    self._meta_data(tag="meta_data_tag", display_name="", step=0, walltime=begun).SerializeToString()
                )
            for point in points:
                when = round(point.time * 1000)
                for curve, step, value in self.form(point):
                    framed.write(self._scalar(tag=curve, value=value, step=step, walltime=when).SerializeToString())
            append_whole(file, content.getvalue())

    def form(self, point: Point) -> list[Drawn]:
        """What ``write`` makes of a point."""
        return [Drawn(name.replace("%", "pct"), point.step, as_float32(item)) for name, item in point.values.items()]

    def mend(self) -> None:
        """Cuts off what nothing can read."""
        newest = self._newest()
        if newest is not None:
            mend_file(newest, _FRAME)

    def held(self) -> Iterator[Drawn]:
        """The points in the newest file of ours, which has those of the older ones, too."""
        newest = self._newest()
        for items, _ in () if newest is None else self._read(newest):
            yield from items

    def take_back(self, count: int) -> None:
        """Begins a new file with the first points of the newest one."""
        newest = self._newest()
        if newest is None:
            return
        end = 0
        for items, end_of_record in self._read(newest):
            if items and count < len(items):
                break
            count -= len(items)
            end = end_of_record
        unfinished, number = self._folder / _UNFINISHED, int(_OURS.fullmatch(newest.name)[1])  # type: ignore[index]
        with newest.open("rb") as old, unfinished.open("wb") as new:
            while end > 0 and (content := old.read(min(end, 2**20))):
                new.write(content)
                end -= len(content)
        self._path = self._numbered(number + 1)
        unfinished.rename(self._path)

    def _read(self, path: Path) -> Iterator[tuple[list[Drawn], int]]:
        """The points of each record, with the place in the file where it ends; cuts the file where it can't be read."""
        end = 0
        for content, end_of_record in read_records(path, _FRAME):
            try:
                values = self._record.FromString(content).values
            except Exception:  # of protobuf, which is called by another name in each of its versions
                values = ()
            if not values:  # which ends the server's reading with an error
                cut_file(path, end)
                return
            end = end_of_record
            yield (
                [Drawn(item.tag, item.id, item.value) for item in values if item.WhichOneof("one_value") == "value"],
                end,
            )

    def _newest(self) -> Path | None:
        if not self._folder.is_dir():
            return None
        ours = [path for path in self._folder.iterdir() if _OURS.fullmatch(path.name)]
        return max(ours, key=lambda path: path.name, default=None)

    def _numbered(self, number: int) -> Path:
        return self._folder / f"vdlrecords.dowdyboy.{number:04d}.log"

    def close(self) -> None:
        """Nothing is left to write, and no file is open."""
        self._path = None
