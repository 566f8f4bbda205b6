"""One safetensors file by itself, ours or anybody's."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array

from .files import write_file
from .folders import UNFINISHED, sync_folder
from .safetensors import read, writer


def write_arrays(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Writes a file, whole or not at all.

    Raises:
        OSError: the disk won't have it.
    """
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    unfinished.unlink(missing_ok=True)
    try:
        write_file(unfinished, writer(arrays, metadata)())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays of a file, and the texts in its header.

    Raises:
        CheckpointError: it can't be read, or is none.
    """
    metadata: dict[str, str] = {}
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is no regular file")
        rest = memoryview(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} can't be read: {error}. Give the path of a safetensors file.") from error
    size = len(rest)

    def take(count: int) -> memoryview:
        nonlocal rest
        found, rest = rest[:count], rest[count:]
        return found

    try:
        return read(take, size, metadata), metadata
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{str(path)!r} is no safetensors file: {error}. A pickle (.pth, .pt, .bin, .pdparams) is not read, since "
            "it may run code: load it where it is from, and save it there by safetensors or model_util.save_weights."
        ) from error
