"""A file that lines are added to, on a disk that may be full for a while."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from io import SEEK_END, FileIO
from pathlib import Path

from dowdyboy_core.backend.viewer_files import append_whole

from .folders import sync_folder

_BLOCK = 4096


class LineFile:
    """Adds lines to a file, whole or not at all; what the disk won't have is kept until it will.

    Args:
        path: the file; it is made with the first line.
        tell: gets a sentence, once for each time that the disk begins to refuse.
        mends: drop a last line that has no end, which a process left that was killed while it wrote; an attribute, too.
    """

    def __init__(self, path: Path, tell: Callable[[str], None], *, mends: bool = False) -> None:
        self.path = path
        self._tell = tell
        self.mends = mends
        self._pending: list[str] = []
        self._failing = False

    def add(self, line: str) -> None:
        """Takes a line, without its end, for the next ``flush``."""
        self._pending.append(line + "\n")

    def flush(self) -> None:
        """Writes what was added, if the disk will have it."""
        if not self._pending:
            return
        try:
            # By its path each time, since the folder may have vanished and come back.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.mends:
                self._mend()
                self.mends = False
            with self.path.open("ab", buffering=0) as file:
                append_whole(file, "".join(self._pending).encode(errors="backslashreplace"))
        except OSError as error:
            failing, self._failing = self._failing, True
            if not failing:
                self._tell(f"{str(self.path)!r} can't be written: {error}. Its lines are kept until it can be.")
            return
        self._pending.clear()
        self._failing = False

    def size(self) -> int:
        """The length of the file in bytes; 0 if there is none."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def sync(self) -> None:
        """Has the system put the file on the disk itself; where it can't, writing has told so, or the disk has gone."""
        with suppress(OSError), self.path.open("rb") as file:
            os.fsync(file.fileno())
            sync_folder(self.path.parent)

    def _mend(self) -> None:
        if self.path.exists():
            with self.path.open("r+b", buffering=0) as file:
                size = file.seek(0, SEEK_END)
                end = _end_of_lines(file, size)
                if end < size:
                    file.truncate(end)

    def cut(self, size: int) -> None:
        """Drops what stands after the first ``size`` bytes.

        Raises:
            OSError: the file can't be changed.
        """
        if self.size() > size:
            with self.path.open("r+b") as file:
                file.truncate(size)


def _end_of_lines(file: FileIO, end: int) -> int:
    """Where the last whole line of the first ``end`` bytes ends."""
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0
