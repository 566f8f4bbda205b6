"""VisualDL's files."""

from __future__ import annotations

import io
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dowdyboy_core import Point, SetupError
from dowdyboy_core._lines import append_whole

_numbers = itertools.count()


class VisualDLTracker:
    """Writes curves for VisualDL, many points at a time, with the messages and the framing of its own package.

    Its writer would hand over each point to a thread of its own, which takes longer, drops what the disk won't have,
    and goes on behind half a record that nothing can read; and two that begin in the same second would share a file.

    Args:
        folder: where the record file goes.

    Raises:
        SetupError: VisualDL is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from visualdl.component.base_component import meta_data, scalar
            from visualdl.writer.record_writer import RecordWriter
        except ImportError as error:
            raise SetupError(
                f"log_with='visualdl' needs VisualDL, which can't be imported: {error}. "
                "Run `pip install visualdl`, or set log_with='none'."
            ) from error
        self._scalar: Any = scalar
        self._records: Any = RecordWriter
        begun = time.time()
        self._path = folder / f"vdlrecords.{begun:010.0f}.{os.getpid()}.{next(_numbers)}.log"
        folder.mkdir(parents=True, exist_ok=True)
        self._path.touch(exist_ok=False)
        self._append([meta_data(tag="meta_data_tag", display_name="", step=0, walltime=round(begun * 1000))])

    def write(self, points: Sequence[Point]) -> None:
        """Adds points to the curves; VisualDL takes no ``%`` in a name, and gets ``pct`` instead."""
        self._append(record for point in points for record in self._records_of(point))

    def _records_of(self, point: Point) -> Iterator[Any]:
        for name, item in point.values.items():
            tag = name.replace("%", "pct")
            yield self._scalar(tag=tag, value=item, step=point.step, walltime=round(point.time * 1000))

    def _append(self, records: Iterator[Any] | list[Any]) -> None:
        content = io.BytesIO()
        framed = self._records(content)
        for record in records:
            framed.write(record.SerializeToString())
        with self._path.open("r+b", buffering=0) as file:
            append_whole(file, content.getvalue())

    def close(self) -> None:
        """Nothing is left to write, and no file is open."""
