"""CIFAR-10 as an image folder, read from the binary archive, which holds nothing that could be unpickled."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dowdyboy_core._errors import SetupError

__all__ = ["CIFAR10", "Archive", "make_folder", "png"]

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIDE = 32
_PLANE = _SIDE * _SIDE
_RECORD = 1 + 3 * _PLANE
# In the archive: where each file goes, and the number of its first image in units of whole files.
_MEMBERS = {f"cifar-10-batches-bin/data_batch_{1 + part}.bin": ("train", part) for part in range(5)}
_MEMBERS["cifar-10-batches-bin/test_batch.bin"] = ("test", 0)


@dataclass(frozen=True)
class Archive:
    """Where an archive comes from, how it is told to be whole, and the images in each of its files."""

    url: str
    md5: str
    records: int
    name: str = "cifar-10-binary.tar.gz"


# https://www.cs.toronto.edu/~kriz/cifar.html, "CIFAR-10 binary version"
CIFAR10 = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    records=10_000,
)


def make_folder(data_dir: Path, out_dir: Path, download: bool, archive: Archive) -> int:
    """Writes the images of an archive of CIFAR-10's format; gives how many it wrote."""
    path = data_dir / archive.name
    if not path.exists():
        if not download:
            raise SetupError(_what_to_fetch(data_dir, archive))
        _download(archive, path)
    with path.open("rb") as file:
        if _copied_md5(file, None) != archive.md5:
            raise SetupError(
                f"{path} does not have the MD5 {archive.md5}, so it is cut short or another file. "
                f"Delete it; with download=True it is fetched again from {archive.url}."
            )
        file.seek(0)
        return _write_images(_images(file, path, archive), out_dir)


def _what_to_fetch(data_dir: Path, archive: Archive) -> str:
    fetch = f"Put {archive.name} there, from {archive.url}, or call with download=True."
    if (data_dir / "cifar-10-python.tar.gz").exists():
        return (
            f"{data_dir} holds cifar-10-python.tar.gz alone, which could only be read by unpickling, and "
            f"that can run code. {fetch}"
        )
    return f"{data_dir} holds no {archive.name}. {fetch}"


# ----------------------------------------------------------------------------------------------- the archive


def _download(archive: Archive, path: Path) -> None:
    """Fetch the archive; it gets its name only when it is whole."""
    import http.client
    import urllib.request

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    by_hand = f"Try again, or put it into {path.parent} yourself."
    try:
        with urllib.request.urlopen(archive.url, timeout=60) as reply, partial.open("wb") as file:
            md5 = _copied_md5(reply, file)
            file.flush()
            os.fsync(file.fileno())
        if md5 != archive.md5:
            raise SetupError(f"{archive.url} gave a file with the MD5 {md5}, not {archive.md5}. {by_hand}")
        partial.replace(path)
    except (OSError, http.client.HTTPException) as err:  # a refusal, a time-out and a full disk are OSErrors
        raise SetupError(f"{archive.url} could not be downloaded to {path}: {err}. {by_hand}") from err
    finally:
        partial.unlink(missing_ok=True)


def _copied_md5(source: IO[bytes], target: IO[bytes] | None) -> str:
    import hashlib

    md5 = hashlib.md5(usedforsecurity=False)  # what the publisher gives; it tells a broken file, not a forged one
    while block := source.read(1 << 20):
        md5.update(block)
        if target is not None:
            target.write(block)
    return md5.hexdigest()


def _images(file: IO[bytes], path: Path, archive: Archive) -> Iterator[tuple[str, bytes]]:
    """Each image's path in the image folder, and its three planes.

    The members are looked for by name and read as streams; nothing of the archive becomes a path.
    """
    import tarfile
    import zlib

    missing = dict(_MEMBERS)
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as tar:
            for member in tar:
                if member.name not in missing:
                    continue
                split, part = missing.pop(member.name)
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None or member.size != archive.records * _RECORD:
                    raise SetupError(f"{path}: {member.name} is not {archive.records} images of {_RECORD} bytes.")
                for number in range(part * archive.records, (part + 1) * archive.records):
                    label, planes = _record(stream, path)
                    yield f"{split}/{label}/{number}.png", planes
    except (tarfile.TarError, EOFError, zlib.error, OSError) as err:
        raise SetupError(f"{path} can't be read as a .tar.gz: {err}. Delete it and fetch it again.") from err
    if missing:
        raise SetupError(f"{path} has no {', '.join(missing)}. Delete it and fetch it again.")


def _record(stream: IO[bytes], path: Path) -> tuple[str, bytes]:
    """The class name and the planes of the next image."""
    record = stream.read(_RECORD)
    if len(record) != _RECORD or record[0] >= len(_CLASSES):
        raise SetupError(f"{path} holds a record that is cut short or of no class. Delete it and fetch it again.")
    return _CLASSES[record[0]], record[1:]


# ------------------------------------------------------------------------------------------------ the images


def _write_images(images: Iterator[tuple[str, bytes]], out_dir: Path) -> int:
    written = 0
    for split in ("train", "test"):
        for label in _CLASSES:
            (out_dir / split / label).mkdir(parents=True, exist_ok=True)
    partial = out_dir / ".cifar10.partial"
    for name, planes in images:
        path = out_dir / name
        if not path.exists():
            partial.write_bytes(png(planes, _SIDE, _SIDE))
            partial.replace(path)  # so that what has the name of an image is a whole one
            written += 1
    return written


def png(planes: bytes, width: int, height: int) -> bytes:
    """An 8-bit RGB image as a PNG file, from its red, green and blue planes, each row by row.

    Format: https://www.w3.org/TR/png-3/, colour type 2, no filter, no interlace.
    """
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    plane = width * height
    pixels = bytearray(3 * plane)
    for channel in range(3):
        pixels[channel::3] = planes[channel * plane : (channel + 1) * plane]
    row = 3 * width
    lines = b"".join(b"\0" + pixels[start : start + row] for start in range(0, 3 * plane, row))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
