"""Memory that files are read into."""

from __future__ import annotations

import mmap

_LARGE = 2**20


def new_memory(size: int) -> memoryview:
    """New memory; where it is large it begins with a page, and so is aligned as well as that of any framework."""
    if size < _LARGE:
        return memoryview(bytearray(size))
    # Not NumPy's, which asks for huge pages: a virtual machine may have to fetch those from its host, at a tenth of the
    # speed.
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
