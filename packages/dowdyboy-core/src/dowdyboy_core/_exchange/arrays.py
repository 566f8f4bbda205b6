"""Stored arrays in the neutral layout and back: only elements move, none is looked at."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import Any

from dowdyboy_core._errors import CheckpointError
from dowdyboy_core.backend.arrays import Array
from dowdyboy_core.backend.layouts import neutral_shape
from dowdyboy_core.backend.words import Place


def to_neutral(place: Place, array: Array) -> Array:
    """The neutral tensor at a place of a stored array; the array itself where nothing has to move.

    Raises:
        CheckpointError: the array has another shape than its description says.
    """
    if tuple(array.shape) != place.stored:
        raise CheckpointError(
            f"The array {place.array!r} has shape {tuple(array.shape)}, and exchange.json says {place.stored}. The "
            "checkpoint is not whole; use another."
        )
    if place.rows is None and place.axes is None:
        return Array(array.dtype, neutral_shape(place), array.data)
    elements = _elements(array)
    if place.rows is not None:
        elements = elements[place.rows[0] : place.rows[1]]
    if place.axes is not None:
        elements = elements.transpose(place.axes)
    return _array(array.dtype, neutral_shape(place), elements)


def from_neutral(pieces: Sequence[tuple[Place, Array]]) -> Array:
    """The array of a framework's own that neutral tensors lie in, each at its place.

    Raises:
        CheckpointError: they don't fill it.
    """
    [place, neutral], *others = pieces
    stored = place.stored
    if not others and place.rows is None:
        if place.axes is None:
            return Array(neutral.dtype, stored, neutral.data)
        moved = _unflattened(place, neutral).transpose(_inverse(place.axes))
        return _array(neutral.dtype, stored, moved)
    whole = _empty(stored, _elements(neutral).dtype)
    filled = 0
    for at, piece in pieces:
        if piece.dtype != neutral.dtype:
            raise CheckpointError(f"{at.array!r} is made of tensors of types {neutral.dtype} and {piece.dtype}.")
        moved = _unflattened(at, piece)
        if at.axes is not None:
            moved = moved.transpose(_inverse(at.axes))
        first, last = at.rows or (0, stored[0])
        whole[first:last] = moved
        filled += last - first
    if filled != stored[0]:
        raise CheckpointError(f"{at.array!r} has {stored[0]} rows, and {filled} are given.")
    return _array(neutral.dtype, stored, whole)


def filled(dtype: str, shape: tuple[int, ...], value: float) -> Array:
    """An array with one value in each element.

    Raises:
        CheckpointError: there is no such type here.
    """
    import numpy as np

    if dtype == "BF16":
        bits = np.float32(value).view(np.uint32) >> 16
        return Array(dtype, shape, np.full(math.prod(shape), bits, np.uint16).view(np.uint8))
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
    if dtype not in kinds:
        raise CheckpointError(f"Arrays of type {dtype} can't be filled with {value}.")
    return Array(dtype, shape, np.full(math.prod(shape), value, kinds[dtype]).view(np.uint8))


def holds_only(array: Array, value: float) -> bool:
    """Whether each element of an array has that value."""
    [wanted] = _elements(filled(array.dtype, (1,), value))
    return bool((_elements(array) == wanted).all())


def _unflattened(place: Place, neutral: Array) -> Any:
    """The elements of a neutral tensor with the axes that they have before they become one."""
    if not place.flat:
        return _elements(neutral)
    shape = list(place.stored)
    if place.rows is not None:
        shape[0] = place.rows[1] - place.rows[0]
    if place.axes is not None:
        shape = [shape[axis] for axis in place.axes]
    return _elements(neutral).reshape(shape)


def _inverse(axes: Sequence[int]) -> list[int]:
    return sorted(range(len(axes)), key=axes.__getitem__)


def _elements(array: Array) -> Any:
    """The elements as unsigned integers of their size, or as bytes where there is no such integer."""
    import numpy as np

    data = memoryview(array.data).cast("B")
    count = math.prod(array.shape)
    if not count:
        return np.empty(array.shape, np.uint8)
    size = data.nbytes // count
    kind = f"<u{size}" if size in (1, 2, 4, 8) else f"V{size}"
    return np.frombuffer(data, kind).reshape(array.shape)


def _array(dtype: str, shape: tuple[int, ...], elements: Any) -> Array:
    """Plain data of elements, which are put in C order: an array that isn't contiguous is never stored as it lies."""
    import numpy as np

    return Array(dtype, shape, _contiguous(elements).reshape(-1).view(np.uint8))


_BLOCK = 256  # rows and columns that stay in a cache while they change places: half the time of a large matrix


_LARGE = 2**20


def _contiguous(elements: Any) -> Any:
    if elements.flags.c_contiguous:
        return elements
    found = _empty(elements.shape, elements.dtype)
    if elements.ndim != 2 or min(elements.shape) <= _BLOCK:
        found[...] = elements
        return found
    for row in range(0, elements.shape[0], _BLOCK):
        for column in range(0, elements.shape[1], _BLOCK):
            block = slice(row, row + _BLOCK), slice(column, column + _BLOCK)
            found[block] = elements[block]
    return found


def _empty(shape: Sequence[int], kind: Any) -> Any:
    """A new array, which begins with a page where it is large: a framework that wants it aligned needn't copy it."""
    import numpy as np

    size = math.prod(shape) * np.dtype(kind).itemsize
    if size < _LARGE:
        return np.empty(shape, kind)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), kind).reshape(shape)
