"""Digests of batches, by which processes find out whether they see the same data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from dowdyboy_core.backend.arrays import Array

_DEPTH = 12  # Containers deeper than this are looked into no further: a batch that holds itself must come to an end.

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def digest_of(batch: Any, plain: Callable[[Any], Array | None]) -> str:
    """Gives equal texts for batches with equal tensors, arrays, numbers and texts in equal places.

    Args:
        batch: a batch of any nesting. Of objects of other kinds their attributes count, and never their addresses.
        plain: gives a tensor as plain data, and None for what is none.
    """
    whole = blake2b(digest_size=16)
    for piece in _pieces(batch, plain, _DEPTH):
        whole.update(piece)
    return whole.hexdigest()


def _pieces(value: Any, plain: Callable[[Any], Array | None], depth: int) -> Iterable[bytes]:
    array = _array_of(value, plain)
    yield f"<{type(value).__name__}".encode()
    if array is not None:
        yield f"{array.dtype}{tuple(array.shape)}".encode()
        yield from (memoryview(buffer).tobytes() for buffer in array.buffers())
    elif isinstance(value, _PLAIN):
        yield repr(value).encode("utf-8", "surrogatepass")
    elif depth:
        for key, item in _items_of(value):
            yield repr(key).encode("utf-8", "surrogatepass") if isinstance(key, _PLAIN) else b"?"
            yield from _pieces(item, plain, depth - 1)
    yield b">"


def _array_of(value: Any, plain: Callable[[Any], Array | None]) -> Array | None:
    import numpy as np

    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            return None
        return Array(value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
    return plain(value)


def _items_of(value: Any) -> Iterable[tuple[Any, Any]]:
    import numpy as np

    if isinstance(value, np.ndarray):
        return enumerate(value.ravel().tolist())
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, type) or callable(value):
        return ()
    return getattr(value, "__dict__", {}).items()
