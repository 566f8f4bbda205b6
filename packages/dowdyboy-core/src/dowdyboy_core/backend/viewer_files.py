"""Files of records that a viewer reads: each with its length before it, and perhaps with checksums around it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from io import SEEK_END, FileIO
from pathlib import Path
from typing import NamedTuple

_LENGTH = struct.Struct("<Q")


class Frame(NamedTuple):
    """What stands around each record.

    Attributes:
        before: bytes between the length and the record.
        after: bytes behind the record.
    """

    before: int = 0
    after: int = 0


def read_records(path: Path, frame: Frame) -> Iterator[tuple[bytes, int]]:
    """Gives each whole record with the place in the file at which it ends; what is added meanwhile is left out.

    Raises:
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        size, end = os.fstat(file.fileno()).st_size, 0
        while end + _LENGTH.size <= size:
            [length] = _LENGTH.unpack(file.read(_LENGTH.size))
            start, end = end, end + _LENGTH.size + frame.before + length + frame.after
            if end > size or not length:  # zeros are what some disks leave behind when the power fails
                return
            content = file.read(end - start - _LENGTH.size)
            yield content[frame.before : len(content) - frame.after], end


def cut_file(path: Path, size: int) -> None:
    """Drops what stands after the first ``size`` bytes.

    Raises:
        OSError: the file can't be changed.
    """
    if path.stat().st_size > size:
        with path.open("r+b", buffering=0) as file:
            file.truncate(size)


def mend_file(path: Path, frame: Frame) -> None:
    """Drops half a record at the end, which a process left that was killed while it wrote.

    Raises:
        OSError: the file can't be changed.
    """
    cut_file(path, max((end for _, end in read_records(path, frame)), default=0))


def append_whole(file: FileIO, content: bytes) -> None:
    """Adds ``content`` to a file whole, or not at all.

    Raises:
        OSError: the disk won't have it.
    """
    start = file.seek(0, SEEK_END)
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with suppress(OSError):  # the first error says more
            file.truncate(start)
        raise


def as_float32(value: float) -> float:
    """A number as precisely as four bytes keep it, inf where it is too large for them."""
    return float(ctypes.c_float(value).value)
