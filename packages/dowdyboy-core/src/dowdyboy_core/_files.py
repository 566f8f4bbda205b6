"""Folders of state on disk: safetensors for arrays, JSON for the rest, each file with its digest, all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ._errors import CheckpointError
from ._folders import UNFINISHED, clear, make_folder, put_in_place, sync_folder
from ._state import Array, decode, encode

INDEX = "checkpoint.json"
FORMAT = "dowdyboy-checkpoint"
FORMAT_VERSION = 1

_MAX_INDEX_BYTES = 2**24  # thousands of times what any checkpoint of ours has
_NO_DIGEST = "0" * 64
_DIGEST = re.compile("[0-9a-f]{64}")

Weights = dict[str, Array]


Write = Callable[[], Iterator[Any]]
"""Yields the content of a file in pieces."""


@dataclass(frozen=True)
class Content:
    """What a folder will hold, ready to be written as often as one likes, by any thread.

    Attributes:
        index: what ``checkpoint.json`` says besides format, files and its digest.
        writers: the other files by name.
    """

    index: Mapping[str, Any]
    writers: Mapping[str, Write]


def prepare(index: Mapping[str, Any], weights: Mapping[str, Weights], trees: Mapping[str, Any]) -> Content:
    """Brings state into the form that files have, without touching the disk or copying an array.

    Args:
        index: what ``checkpoint.json`` says besides format and files.
        weights: flat arrays by file name; each becomes ``NAME.safetensors``.
        trees: trees by file name; each becomes ``NAME.json``, with ``NAME.safetensors`` beside it for its arrays.

    Raises:
        CheckpointError: something in a tree can't be stored.
    """
    return Content(index, dict(sorted(_writers(weights, trees).items())))  # in any order it is the same folder


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
    try:
        files = {name: _write_file(unfinished / name, write) for name, write in content.writers.items()}
        whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **content.index, "files": files}
        sealed = _sealed(whole)
        _write_file(unfinished / INDEX, lambda: iter([sealed]))
        sync_folder(unfinished)
        put_in_place(unfinished, folder)
    except BaseException:
        clear(unfinished)
        raise


def read_index(folder: Path) -> dict[str, Any]:
    """Reads ``checkpoint.json``.

    Raises:
        CheckpointError: there is none, or it isn't ours.
    """
    try:
        content = _read_index(folder / INDEX)
        index = _parse_json(content)
    except FileNotFoundError:
        raise CheckpointError(
            f"{str(folder)!r} holds no {INDEX}. Give the folder of one checkpoint, such as out_dir/checkpoint/epoch_1."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(folder / INDEX)!r} can't be read: {error}. Use another checkpoint.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT or not isinstance(index.get("files"), dict):
        raise CheckpointError(f"{str(folder / INDEX)!r} is no index of a {FORMAT}. Give a checkpoint of dowdyboy.")
    strange = [name for name in index["files"] if Path(name).name != name]
    if strange:
        raise CheckpointError(f"{str(folder / INDEX)!r} names {strange[0]!r}, which is no file name. Don't trust it.")
    if index.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{str(folder)!r} has format version {index.get('format_version')!r}; this dowdyboy reads "
            f"{FORMAT_VERSION}. Read it with the version that wrote it: {index.get('dowdyboy')!r}."
        )
    if index.get("sha256") != _digest_of_index(content, index.get("sha256")):
        raise CheckpointError(
            f"{str(folder / INDEX)!r} doesn't match its own digest: it is damaged, or was changed by hand. "
            "Use another checkpoint."
        )
    return index


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
    blank = _json({**index, "sha256": _NO_DIGEST})
    seal = hashlib.sha256(blank).hexdigest().encode()
    return seal.join(blank.rsplit(_NO_DIGEST.encode(), 1))


def _digest_of_index(content: bytes, said: Any) -> str:
    if not isinstance(said, str) or not _DIGEST.fullmatch(said):
        return ""
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
        """The flat arrays of ``NAME.safetensors``.

        Raises:
            CheckpointError: the file is missing, damaged or not what it should be.
        """
        return _parse_safetensors(self._checked(f"{name}.safetensors"), name)

    def tree(self, name: str) -> Any:
        """The tree of ``NAME.json``.

        Raises:
            CheckpointError: a file is missing, damaged or not what it should be.
        """
        arrays = self.weights(name) if f"{name}.safetensors" in self.names() else {}
        try:
            value = _parse_json(self._checked(f"{name}.json"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{name}.json in {str(self._folder)!r} is no JSON: {error}.") from error
        return decode(value, arrays)

    def _checked(self, name: str) -> bytes:
        path = self._measured(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{str(path)!r} can't be read: {error}. Use another checkpoint.") from error
        if hashlib.sha256(content).hexdigest() != self.index["files"][name].get("sha256"):
            raise CheckpointError(f"{str(path)!r} doesn't match its digest: it is damaged. Use another checkpoint.")
        return content

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
            self._checked(name)


def is_whole(folder: Path) -> bool:
    """Whether a folder is what ``write_folder`` made it."""
    try:
        FolderReader(folder).verify()
    except CheckpointError:
        return False
    return True


def _parse_json(content: bytes) -> Any:
    """A JSON value; a key that is there twice is refused, since other readers may take the other value for it.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    return json.loads(content, object_pairs_hook=_without_doubles, parse_constant=_no_constant)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r:.80} is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_safetensors(content: bytes, name: str) -> Weights:
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(content)
    except SafetensorError as error:
        raise CheckpointError(f"{name}.safetensors is no safetensors file: {error}.") from error
    return {key: Array(entry["dtype"], tuple(entry["shape"]), entry["data"]) for key, entry in entries}


def _writers(weights: Mapping[str, Weights], trees: Mapping[str, Any]) -> dict[str, Write]:
    writers: dict[str, Write] = {f"{name}.safetensors": _safetensors_writer(item) for name, item in weights.items()}
    for name, tree in trees.items():
        value, arrays = encode(tree, name)
        writers[f"{name}.json"] = _json_writer(value)
        if arrays:
            writers[f"{name}.safetensors"] = _safetensors_writer(arrays)
    return writers


def _json_writer(value: Any) -> Write:
    content = _json(value)
    return lambda: iter([content])


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n"


def _safetensors_writer(arrays: Weights) -> Write:
    """The format: https://github.com/huggingface/safetensors#format.

    Eight bytes with the length of the header, the header in JSON, the data of the arrays one after another. Written
    here and not by the library, which can neither take a digest on the way nor store bfloat16 without a framework.
    """
    if sys.byteorder != "little":
        raise CheckpointError("Checkpoints hold little-endian data, and this machine is big-endian.")
    # Wide elements first, so that each array is aligned to its element size.
    order = sorted(arrays, key=lambda key: (-_ELEMENT_BYTES[arrays[key].dtype], key))
    header: dict[str, Any] = {}
    end = 0
    for key in order:
        start, end = end, end + memoryview(arrays[key].data).nbytes
        header[key] = {
            "dtype": arrays[key].dtype,
            "shape": list(arrays[key].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)

    def pieces() -> Iterator[Any]:
        yield len(text).to_bytes(8, "little") + text
        for key in order:
            yield memoryview(arrays[key].data).cast("B") if memoryview(arrays[key].data).nbytes else b""

    return pieces


_ELEMENT_BYTES = {
    "C64": 8, "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


def _write_file(path: Path, write: Write) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = 0
    # Without a buffer: a process that is forked meanwhile, for a loader, would write out its copy of it once more.
    with path.open("xb", buffering=0) as file:
        for piece in write():
            rest = memoryview(piece)
            while rest:  # the system takes at most 2 GiB at a time
                rest = rest[file.write(rest) :]
            digest.update(piece)
            size += len(piece)
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}
