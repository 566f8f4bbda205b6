"""Folders of state on disk: safetensors for arrays, JSON for the rest, each file with its digest, all or nothing."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.trees import decode, encode

from .folders import UNFINISHED, clear, make_folder, put_in_place, sync_folder
from .json import dump_json, parse_json
from .memory import new_memory
from .packed import pack, unpack
from .safetensors import read, writer
from .tied import stored_once, under_each_name

INDEX = "checkpoint.json"
FORMAT = "dowdyboy-checkpoint"
FORMAT_VERSION = 3
_READ = (1, 2, 3)

_MAX_INDEX_BYTES = 2**24  # thousands of times what any checkpoint of ours has
_PIECE = 2**23
_NO_DIGEST = "0" * 64
_DIGEST = re.compile("[0-9a-f]{64}")

Weights = dict[str, Array]

Write = Callable[[], Iterator[Any]]
"""Yields the content of a file in pieces."""

Take = Callable[[int], memoryview]
"""Gives the next so many bytes of a file, in memory of their own."""


@dataclass(frozen=True)
class Content:
    """What a folder will hold, ready to be written as often as one likes, by any thread.

    Attributes:
        index: what ``checkpoint.json`` says besides format, files and its digest.
        writers: the other files by name.
    """

    index: Mapping[str, Any]
    writers: Mapping[str, Write]

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Size and digest of each file by its name, computed once for all folders that hold this."""
        return {name: _describe(write()) for name, write in self.writers.items()}


def _describe(pieces: Iterable[Any]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def prepare(index: Mapping[str, Any], weights: Mapping[str, Weights], trees: Mapping[str, Any]) -> Content:
    """Brings state into the form that files have, without touching the disk or copying an array.

    Args:
        index: what ``checkpoint.json`` says besides format and files.
        weights: flat arrays by file name; each becomes ``NAME.safetensors``, in which one object is stored once.
        trees: trees by file name; each becomes ``NAME.json``, with ``NAME.safetensors`` beside it for its arrays.

    Raises:
        CheckpointError: something in a tree can't be stored.
    """
    once, tied = stored_once(weights)
    kept, packed = pack(once)
    writers = dict(sorted(_writers(kept, trees).items()))  # in any order it is the same folder
    return Content({**index, "tied": tied, "packed": packed}, writers)


def write_folder(folder: Path, content: Content) -> None:
    """Writes a folder so that it is there whole or not at all, also if the machine dies half-way.

    Args:
        folder: its path; an older folder there goes once the new one is in its place.
        content: what it is to hold.

    Raises:
        OSError: the disk won't have it; nothing of the new folder stays.
    """
    make_folder(folder.parent)
    unfinished = folder.with_name(UNFINISHED + folder.name)
    clear(unfinished)
    unfinished.mkdir()
    # Hashing takes about as long as writing, and needs nothing that is written.
    hashing = threading.Thread(target=lambda: content.files, name="dowdyboy-digests")
    hashing.start()
    try:
        for name, write in content.writers.items():
            write_file(unfinished / name, write())
        hashing.join()
        whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **content.index, "files": content.files}
        write_file(unfinished / INDEX, [_sealed(whole)])
        sync_folder(unfinished)
        put_in_place(unfinished, folder)
    except BaseException:
        clear(unfinished)
        raise
    finally:
        hashing.join()


def read_index(folder: Path) -> dict[str, Any]:
    """Reads ``checkpoint.json``.

    Raises:
        CheckpointError: there is none, or it isn't ours.
    """
    try:
        content = _read_index(folder / INDEX)
        index = parse_json(content)
    except FileNotFoundError:
        problem = f"holds no {INDEX}" if folder.is_dir() else "is no folder"
        raise CheckpointError(
            f"{str(folder)!r} {problem}. Give the folder of one checkpoint, such as {_example(folder)}."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(folder / INDEX)!r} can't be read: {error}. Use another checkpoint.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT or not isinstance(index.get("files"), dict):
        raise CheckpointError(f"{str(folder / INDEX)!r} is no index of a {FORMAT}. Give a checkpoint of dowdyboy.")
    strange = [name for name in index["files"] if Path(name).name != name]
    if strange:
        raise CheckpointError(f"{str(folder / INDEX)!r} names {strange[0]!r}, which is no file name. Don't trust it.")
    if type(index.get("format_version")) is not int or index["format_version"] not in _READ:
        raise CheckpointError(
            f"{str(folder)!r} has format version {index.get('format_version')!r}; this dowdyboy reads "
            f"{', '.join(map(str, _READ[:-1]))} and {_READ[-1]}. Read it with the version that wrote it: "
            f"{index.get('dowdyboy')!r}."
        )
    said = index.get("sha256")
    if not isinstance(said, str) or not _DIGEST.fullmatch(said) or said != _digest_of_index(content, said):
        raise CheckpointError(
            f"{str(folder / INDEX)!r} doesn't match its own digest: it is damaged, or was changed by hand. "
            "Use another checkpoint."
        )
    return index


def _example(folder: Path) -> str:
    """A checkpoint to give instead: the newest one below the folder, if there is any."""
    below = [path for pattern in ("*", "checkpoint/*") for path in folder.glob(f"{pattern}/{INDEX}")]
    if not below:
        return "out_dir/checkpoint/epoch_1"
    return repr(str(max(below, key=lambda path: path.stat().st_mtime_ns).parent))


def _read_index(path: Path) -> bytes:
    size = _regular_size(path)
    if size > _MAX_INDEX_BYTES:
        raise ValueError(f"it has {size} bytes, and no index has more than {_MAX_INDEX_BYTES}")
    return path.read_bytes()


def _regular_size(path: Path) -> int:
    """The size of a file that can be read to its end, which a pipe or a device can not."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file")
    return found.st_size


def _sealed(index: Mapping[str, Any]) -> bytes:
    """The index as it is in its file, with the digest of the file's own bytes in it.

    The digest is that of the bytes with 64 zeros in its own place.
    """
    blank = dump_json({**index, "sha256": _NO_DIGEST})
    seal = hashlib.sha256(blank).hexdigest().encode()
    return seal.join(blank.rsplit(_NO_DIGEST.encode(), 1))


def _digest_of_index(content: bytes, said: str) -> str:
    return hashlib.sha256(_NO_DIGEST.encode().join(content.rsplit(said.encode(), 1))).hexdigest()


class FolderReader:
    """Reads the files of a folder that ``write_folder`` wrote, each checked against its digest."""

    def __init__(self, folder: Path) -> None:
        self.index = read_index(folder)
        self._folder = folder

    def names(self) -> set[str]:
        """The names of the files, with their endings."""
        return set(self.index["files"])

    def weights(self, name: str) -> Weights:
        """The flat arrays of ``NAME.safetensors``, under all of their names.

        Raises:
            CheckpointError: the file is missing, damaged or not what it should be.
        """
        try:
            with self._opened(f"{name}.safetensors") as (take, size):
                arrays = unpack(name, read(take, size), self.index.get("packed", {}))
                return under_each_name(name, arrays, self.index.get("tied", {}))
        except (ValueError, RecursionError) as error:
            path = str(self._folder / f"{name}.safetensors")
            raise CheckpointError(f"{path!r} is no safetensors file: {error}. Use another checkpoint.") from error

    def tree(self, name: str) -> Any:
        """The tree of ``NAME.json``.

        Raises:
            CheckpointError: a file is missing, damaged or not what it should be.
        """
        arrays = self.weights(name) if f"{name}.safetensors" in self.names() else {}
        with self._opened(f"{name}.json") as (take, size):
            content = bytes(take(size))
        try:
            value = parse_json(content)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{name}.json in {str(self._folder)!r} is no JSON: {error}.") from error
        return decode(value, arrays)

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[Take, int]]:
        """Gives what reads a file bit by bit, and its size; once all is read, its digest is compared."""
        from concurrent.futures import ThreadPoolExecutor

        path, digest = self._measured(name), hashlib.sha256()
        try:
            # Hashing takes longer than reading, and so is done by a thread while the rest is read.
            with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as beside:

                def take(size: int) -> memoryview:
                    memory = rest = new_memory(size)
                    while rest:
                        got = file.readinto(rest[:_PIECE])
                        if not got:
                            raise OSError(f"it ends {len(rest)} bytes early")
                        beside.submit(digest.update, rest[:got])
                        rest = rest[got:]
                    return memory

                yield take, self.index["files"][name]["bytes"]
        except OSError as error:
            raise CheckpointError(f"{str(path)!r} can't be read: {error}. Use another checkpoint.") from error
        self._compare(name, digest.hexdigest())

    def _compare(self, name: str, digest: str) -> None:
        if digest != self.index["files"][name].get("sha256"):
            path = str(self._folder / name)
            raise CheckpointError(f"{path!r} doesn't match its digest: it is damaged. Use another checkpoint.")

    def _measured(self, name: str) -> Path:
        """The path of a file that has the size which the index says; nothing else is worth reading."""
        said = self.index["files"].get(name)
        if not isinstance(said, dict):
            raise CheckpointError(f"{str(self._folder)!r} has no {name}. Use another checkpoint.")
        path = self._folder / name
        try:
            size = _regular_size(path)
        except (OSError, ValueError) as error:  # ValueError: of a name that no file can have
            raise CheckpointError(f"{str(path)!r} can't be read: {error}. Use another checkpoint.") from error
        if size != said.get("bytes"):
            raise CheckpointError(
                f"{str(path)!r} has {size} bytes instead of {said.get('bytes')}: it is damaged. Use another checkpoint."
            )
        return path

    def measure(self) -> None:
        """Looks whether every file is there and has its size, which takes no time.

        Raises:
            CheckpointError: one is missing or cut.
        """
        for name in self.names():
            self._measured(name)

    def verify(self) -> None:
        """Reads every file and checks its digest.

        Raises:
            CheckpointError: one is missing or damaged.
        """
        for name in self.names():
            with self._opened(name) as (take, size):
                for place in range(0, size, _PIECE):
                    take(min(size - place, _PIECE))


def is_whole(folder: Path) -> bool:
    """Whether a folder is what ``write_folder`` made it."""
    try:
        FolderReader(folder).verify()
    except CheckpointError:
        return False
    return True


def _writers(weights: Mapping[str, Weights], trees: Mapping[str, Any]) -> dict[str, Write]:
    writers: dict[str, Write] = {f"{name}.safetensors": writer(item) for name, item in weights.items()}
    for name, tree in trees.items():
        value, arrays = encode(tree, name)
        writers[f"{name}.json"] = _json_writer(value)
        if arrays:
            writers[f"{name}.safetensors"] = writer(arrays)
    return writers


def _json_writer(value: Any) -> Write:
    content = dump_json(value)
    return lambda: iter([content])


def write_file(path: Path, pieces: Iterable[Any]) -> None:
    # Without a buffer: a process that is forked meanwhile, for a loader, would write out its copy of it once more.
    with path.open("xb", buffering=0) as file:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:  # the system takes at most 2 GiB at a time
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def numbered(names: Mapping[str, Any], stem: str) -> list[Any]:
    """The values of ``stem_0``, ``stem_1``, … in numeric order.

    Raises:
        CheckpointError: a number is left out.
    """
    numbers = sorted(int(match[1]) for name in names if (match := re.fullmatch(stem + r"_(\d+)", name)))
    if numbers != list(range(len(numbers))):
        raise CheckpointError(f"The checkpoint holds {stem} number {numbers}, and some between are missing.")
    return [names[f"{stem}_{number}"] for number in numbers]
