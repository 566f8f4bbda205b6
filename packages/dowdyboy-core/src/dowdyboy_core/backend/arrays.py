"""Tensor data without a framework: dense, sparse, and what a model gives in the place of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from dowdyboy_core._errors import CheckpointError

DENSE, STATE = "dense", "state"
SPARSE = {"coo": ("indices", "values"), "csr": ("crow", "col", "values")}
"""The layouts of sparse tensors, and the arrays that each is made of."""

WITH_PARTS = {"C128": "F64"}
"""Types that safetensors has no name for, stored as these with a last axis of two: real and imaginary part."""


class Array(NamedTuple):
    """Tensor data without a framework.

    Attributes:
        dtype: the element type as safetensors names it, ``'F32'``, ``'BF16'``, ``'I64'``, …, or ``'C128'``.
        shape: the length of each axis.
        data: a buffer with the elements in C order, little-endian; nothing of a sparse one; the tree of a state.
        layout: ``'dense'``; ``'coo'`` or ``'csr'`` of a sparse one; ``'state'`` for what a model gives in its
            state that is no tensor, which is a tree.
        parts: of a sparse one, the arrays that it is made of.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Any
    layout: str = DENSE
    parts: Mapping[str, Any] | None = None

    def buffers(self) -> Iterator[Any]:
        """All its data, as buffers."""
        if self.parts is not None:
            for part in self.parts.values():
                yield part.data
        elif self.layout == DENSE:
            yield self.data


class Member(NamedTuple):
    """A member of an enumeration, of which the class stays with the script: no name in a file is ever looked up.

    Attributes:
        value: the member's value.
    """

    value: Any


# ---- a look at a state that copies nothing

_LOOKING: ContextVar[bool] = ContextVar("looking", default=False)
_MADE_ONLY: ContextVar[bool] = ContextVar("made_only", default=False)


@contextmanager
def without_data() -> Iterator[None]:
    """What a state is only looked at in: whether it can be stored. Arrays that are made in it have no data."""
    token = _LOOKING.set(True)
    try:
        yield
    finally:
        _LOOKING.reset(token)


@contextmanager
def without_unmade() -> Iterator[None]:
    """What models give their states in without what is made by their first forward."""
    token = _MADE_ONLY.set(True)
    try:
        yield
    finally:
        _MADE_ONLY.reset(token)


def leaves_out_unmade() -> bool:
    """Whether the state of a model is wanted without parameters and buffers that its first forward makes."""
    return _MADE_ONLY.get() or _LOOKING.get()


def is_looking() -> bool:
    """Whether a state is only looked at, and an array that is made needs no data."""
    return _LOOKING.get()


# ---- NumPy's

_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "C64": "<c8", "C128": "<c16",
}  # fmt: skip
_OF_NUMPY = {name: kind for kind, name in _NUMPY.items()}


def from_numpy(value: Any) -> Array | None:
    """An array or a number of NumPy's as plain data, copied; None if it is neither, or of a type without a name."""
    import numpy as np

    if not isinstance(value, (np.ndarray, np.generic)) or type(value) in (np.matrix, np.recarray):
        return None
    kind = _OF_NUMPY.get(value.dtype.newbyteorder("<").str)
    if kind is None or (isinstance(value, np.ndarray) and type(value) is not np.ndarray):
        return None
    if is_looking():
        return Array(kind, value.shape, b"")
    copied = np.array(value, dtype=_NUMPY[kind], order="C")
    return Array(kind, copied.shape, copied.reshape(-1).view(np.uint8))


def to_numpy(array: Array) -> Any:
    """A new array of NumPy's from plain data.

    Raises:
        CheckpointError: NumPy has no such type.
    """
    import numpy as np

    if array.dtype not in _NUMPY or array.layout != DENSE:
        raise CheckpointError(f"Arrays of type {array.dtype} ({array.layout}) are not known to NumPy.")
    return np.frombuffer(bytearray(array.data), _NUMPY[array.dtype]).reshape(array.shape)


# ---- what safetensors has no name for


def is_plain(array: Array) -> bool:
    """Whether safetensors has a name for it."""
    return array.layout == DENSE and array.dtype not in WITH_PARTS


def tagged(array: Array, put: Callable[[str, Array], Any], encode: Callable[[Any], Any]) -> dict[str, Any]:
    """A JSON value for an array that isn't plain.

    Args:
        array: the array.
        put: stores a plain array under a name of its own below this one's, and gives a JSON value for it.
        encode: makes a JSON value of a tree.
    """
    if array.layout == STATE:
        return {"$state": encode(array.data)}
    if array.layout == DENSE:
        parts = Array(WITH_PARTS[array.dtype], (*array.shape, 2), array.data)
        return {"$complex": [array.dtype, put("", parts)]}
    assert array.parts is not None
    return {"$sparse": [array.layout, list(array.shape), *(put(name, part) for name, part in array.parts.items())]}


def untagged(tag: str, content: Any) -> Array:
    """The array that ``tagged`` made a JSON value of, in which arrays are in their places.

    Raises:
        CheckpointError: there is no such array.
    """
    if tag == "$state":
        return Array("", (), content, STATE)
    made = (_complex if tag == "$complex" else _sparse)(content) if isinstance(content, list) else None
    if made is None:
        raise CheckpointError(
            f"What is stored under {tag!r} is no such array: {content!r:.80}. Use another checkpoint."
        )
    return made


def _complex(content: list[Any]) -> Array | None:
    if len(content) != 2 or content[0] not in WITH_PARTS or not isinstance(content[1], Array):
        return None
    dtype, parts = content
    fits = parts.layout == DENSE and parts.dtype == WITH_PARTS[dtype] and parts.shape[-1:] == (2,)
    return Array(dtype, parts.shape[:-1], parts.data) if fits else None


def _sparse(content: list[Any]) -> Array | None:
    layout, shape, *given = (*content, None, None)[: max(2, len(content))]
    names = SPARSE.get(layout) if isinstance(layout, str) else None
    if names is None or len(given) != len(names) or not isinstance(shape, list):
        return None
    if not all(type(size) is int and 0 <= size < 2**62 for size in shape) or len(shape) > 64:
        return None
    if not all(isinstance(part, Array) and part.layout == DENSE for part in given):
        return None
    parts = dict(zip(names, given, strict=True))
    fits = (_fits_coo if layout == "coo" else _fits_csr)(tuple(shape), parts)
    return Array(parts["values"].dtype, tuple(shape), b"", layout, parts) if fits else None


def _fits_coo(shape: tuple[int, ...], parts: Mapping[str, Array]) -> bool:
    """Whether indices lead into the tensor: a framework may read and write wherever they lead."""
    indices, values = parts["indices"], parts["values"]
    if indices.dtype != "I64" or len(indices.shape) != 2 or not values.shape or not 0 < indices.shape[0] <= len(shape):
        return False
    axes, count = indices.shape
    if values.shape != (count, *shape[axes:]):
        return False
    found = to_numpy(indices)
    return bool(all(not count or 0 <= row.min() <= row.max() < shape[axis] for axis, row in enumerate(found)))


def _fits_csr(shape: tuple[int, ...], parts: Mapping[str, Array]) -> bool:
    crow, col, values = parts["crow"], parts["col"], parts["values"]
    if len(shape) != 2 or crow.dtype not in ("I64", "I32") or col.dtype != crow.dtype:
        return False
    if crow.shape != (shape[0] + 1,) or len(col.shape) != 1 or values.shape != col.shape:
        return False
    ends, places = to_numpy(crow), to_numpy(col)
    if ends[0] != 0 or ends[-1] != len(places) or (ends[1:] < ends[:-1]).any():
        return False
    return bool(not len(places) or 0 <= places.min() <= places.max() < shape[1])
