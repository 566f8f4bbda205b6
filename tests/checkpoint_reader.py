"""A reader of checkpoints, written from docs/checkpoints.md alone: it uses nothing of the library that wrote them."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?", "C64": "<c8",
    "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1", "F8_E4M3FNUZ": "u1", "F8_E5M2FNUZ": "u1",
}  # fmt: skip
Arrays = dict[str, np.ndarray[Any, Any]]


class NotACheckpoint(Exception):
    """It is none, or it is damaged."""


@dataclass
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        index: what ``checkpoint.json`` says.
        weights: the arrays of ``model_I``, ``ema_I`` and ``component_I``.
        trees: ``optimizer_I``, ``lr_scheduler_I``, ``ema``, ``scaler``, ``rng`` and ``records``.
    """

    index: dict[str, Any]
    weights: dict[str, Arrays]
    trees: dict[str, Any]


def read(folder: Path) -> Checkpoint:
    """Reads a checkpoint and checks every digest.

    Raises:
        NotACheckpoint: something of it is not as it was written.
    """
    index = read_index(folder / "checkpoint.json")
    contents = {name: read_file(folder, name, said) for name, said in index["files"].items()}
    arrays = {
        name.removesuffix(".safetensors"): read_safetensors(content)
        for name, content in contents.items()
        if name.endswith(".safetensors")
    }
    found = Checkpoint(index, {}, {})
    for name, content in contents.items():
        stem = name.rsplit(".", 1)[0]
        if name.endswith(".json"):
            found.trees[stem] = untag(json.loads(content), arrays.get(stem, {}))
        elif stem + ".json" not in contents:
            tied = index.get("tied", {}).get(stem, {})
            once = unpack(arrays[stem], index.get("packed", {}).get(stem, {}))
            found.weights[stem] = once | {other: once[stored] for other, stored in tied.items()}
    return found


def read_index(path: Path) -> dict[str, Any]:
    """Reads ``checkpoint.json`` and checks the digest that it has of itself."""
    content = path.read_bytes()
    try:
        index = json.loads(content)
    except ValueError as error:
        raise NotACheckpoint(f"{path}: {error}") from error
    if (
        not isinstance(index, dict)
        or index.get("format") != "dowdyboy-checkpoint"
        or index.get("format_version") not in (1, 2, 3)
    ):
        raise NotACheckpoint(f"{path} has another format")
    digits = str(index.get("sha256")).encode()
    place = content.rfind(digits)
    blank = content[:place] + b"0" * 64 + content[place + 64 :]
    if len(digits) != 64 or hashlib.sha256(blank).hexdigest().encode() != digits:
        raise NotACheckpoint(f"{path} is damaged")
    return index


def read_file(folder: Path, name: str, said: dict[str, Any]) -> bytes:
    """Reads a file that the index names."""
    if "/" in name:
        raise NotACheckpoint(f"{name} leads elsewhere")
    content = (folder / name).read_bytes()
    if len(content) != said["bytes"] or hashlib.sha256(content).hexdigest() != said["sha256"]:
        raise NotACheckpoint(f"{folder / name} is damaged")
    return content


def read_safetensors(content: bytes) -> Arrays:
    """The arrays of a file; BF16 becomes float32, which holds all its values."""
    [length] = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    data, found, end = content[8 + length :], {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        if first != end:
            raise NotACheckpoint(f"there is a gap or an overlap before {name}")
        array = np.frombuffer(data[first:last], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = (array.astype("<u4") << 16).view("<f4")
        found[name], end = array, last
    if end != len(data):
        raise NotACheckpoint("there is data behind the last array")
    return found


def unpack(arrays: Arrays, packed: dict[str, Any]) -> Arrays:
    """The arrays under the names that the model has for them."""
    text = json.dumps(packed)
    plain = {name: array for name, array in arrays.items() if json.dumps({"$array": name}) not in text}
    return plain | {name: untag(value, arrays) for name, value in packed.items()}


def untag(value: Any, arrays: Arrays) -> Any:
    """A tree as plain Python, tuples as lists, a mapping of any keys as a dict."""
    if isinstance(value, list):
        return [untag(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    [tag] = value if len(value) == 1 else [""]
    if not tag.startswith("$"):
        return {key: untag(item, arrays) for key, item in value.items()}
    content = value[tag]
    if tag == "$array":
        return arrays[content]
    if tag == "$float":
        return float(content)
    if tag in ("$numpy", "$number"):
        return arrays[content] if isinstance(content, str) else untag(content, arrays)
    if tag == "$bytes":
        return base64.b64decode(content)
    if tag == "$complex":
        first, second = untag(content, arrays)
        return second.view("<c16")[..., 0] if first == "C128" else complex(first, second)
    if tag in ("$sparse", "$state"):
        return untag(content, arrays)
    if tag in ("$tuple", "$set", "$enum"):
        return untag(content, arrays)
    if tag == "$deque":
        return untag(content[1], arrays)
    if tag in ("$dict", "$counter"):
        pairs = [(untag(key, arrays), untag(item, arrays)) for key, item in content]
        return {tuple(key) if isinstance(key, list) else key: item for key, item in pairs}
    raise NotACheckpoint(f"{tag} is no tag of version 3")
