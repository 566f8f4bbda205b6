"""Arrays as a safetensors file and back, without copying one: https://github.com/huggingface/safetensors#format.

The format is eight bytes with the length of the header, the header in JSON, and the data of the arrays one after
another. It is written and read here and not by the library, which can neither take a digest on the way, nor store
bfloat16 without a framework, nor read without copying each array once more.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array

from .json import parse_json

_ELEMENT_BYTES = {
    "C64": 8, "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
}  # fmt: skip
_METADATA = "__metadata__"
_MAX_AXES = 64  # of NumPy; without a limit a header could have sizes multiplied for hours


def writer(arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Callable[[], Iterator[Any]]:
    """A function that yields the content of the file that holds these arrays, in pieces.

    Args:
        arrays: what it holds.
        metadata: texts by name that the header has besides; none in a checkpoint.

    Raises:
        CheckpointError: this machine is big-endian, and the data would be the wrong way round.
    """
    if sys.byteorder != "little":
        raise CheckpointError("Checkpoints hold little-endian data, and this machine is big-endian.")
    # Wide elements first, so that each array is aligned to its element size.
    order = sorted(arrays, key=lambda key: (-_ELEMENT_BYTES[arrays[key].dtype], key))
    header: dict[str, Any] = {} if metadata is None else {_METADATA: dict(metadata)}
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


def read(take: Callable[[int], memoryview], size: int, metadata: dict[str, str] | None = None) -> dict[str, Array]:
    """The arrays of a file, each in the memory that ``take`` gives for it.

    Args:
        take: gives the next so many bytes of the file.
        size: how many it has in all, so that nothing huge is asked for in vain.
        metadata: takes the texts by name that the header has besides.

    Raises:
        ValueError: it is no safetensors file.
    """
    if size < 8:
        raise ValueError(f"it has {size} bytes")
    length = int.from_bytes(take(8), "little")
    if length > size - 8:
        raise ValueError(f"its header would have {length} bytes")
    header = parse_json(bytes(take(length)))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    texts = header.pop(_METADATA, None)  # what other writers put there
    if metadata is not None and isinstance(texts, dict):
        metadata.update({name: text for name, text in texts.items() if isinstance(text, str)})
    # In the order of the data, which has neither gaps nor overlaps.
    entries = sorted(((key, *_entry(key, entry)) for key, entry in header.items()), key=lambda entry: entry[3:])
    place = 0
    for key, _, _, begin, end in entries:
        if begin != place:
            raise ValueError(f"the data of {key!r} begins at {begin}, and what is before it ends at {place}")
        place = end
    if place != size - 8 - length:
        raise ValueError(f"its arrays have {place} of {size - 8 - length} bytes")
    return {key: Array(dtype, shape, take(end - begin)) for key, dtype, shape, begin, end in entries}


def _entry(key: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape, and begin and end of the data; refuses what doesn't go together."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        fits = whole and len(shape) <= _MAX_AXES and end - begin == math.prod(shape) * _ELEMENT_BYTES[dtype]
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"it says {entry!r:.120} of {key!r}")
    return dtype, shape, begin, end
