"""PaddlePaddle's tensors as plain data, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle

from dowdyboy_core import CheckpointError
from dowdyboy_core.backend import Array, is_looking

_KNOWN = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "complex64": "C64", "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_NAMES = {getattr(paddle, dtype): name for dtype, name in _KNOWN.items() if hasattr(paddle, dtype)}
# The framework reads NumPy's uint16 as bfloat16, which NumPy itself doesn't have.
_TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_, "C64": np.complex64, "C128": np.complex128,
    "F8_E4M3": np.uint8, "F8_E5M2": np.uint8,
}  # fmt: skip
_VIEWED = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}  # which NumPy has not
_PARTS = {"coo": ("indices", "values"), "csr": ("crows", "cols", "values")}


def has_content(tensor: paddle.Tensor) -> bool:
    """Whether a tensor has been given elements, or has none to be given."""
    return bool(tensor._is_initialized()) or math.prod(tensor.shape) == 0


def _layout(tensor: paddle.Tensor) -> str:
    if tensor.is_dense():
        return "dense"
    return "coo" if tensor.is_sparse_coo() else "csr" if tensor.is_sparse_csr() else "distributed"


def to_array(tensor: paddle.Tensor, what: str = "tensor") -> Array:
    """A copy of a tensor as plain data.

    Raises:
        CheckpointError: a layout or a type that can't be stored, or one without content.
    """
    if not has_content(tensor):
        raise CheckpointError(f"{what} was never initialized, and so it can't be stored. Give it a value first.")
    layout = _layout(tensor)
    if tensor.dtype not in _NAMES or (layout != "dense" and layout not in _PARTS):
        raise CheckpointError(
            f"{what} is a {layout} tensor of type {tensor.dtype}, which can't be stored. Convert it first."
        )
    name, shape = _NAMES[tensor.dtype], tuple(tensor.shape)
    if layout != "dense":
        names = ("crow", "col", "values") if layout == "csr" else _PARTS[layout]
        parts = {part: to_array(getattr(tensor, own)()) for part, own in zip(names, _PARTS[layout], strict=True)}
        return Array(name, shape, b"", layout, parts)
    if is_looking():
        return Array(name, shape, b"")
    copied = np.ascontiguousarray(tensor.numpy())  # numpy() has made a copy
    return Array(name, shape, copied.reshape(-1).view(np.uint8))


def layout_of(tensor: paddle.Tensor) -> Array:
    """What ``to_array`` would give, without the data."""
    return Array(_NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), b"", _layout(tensor))


def _as_numpy(array: Array) -> Any:
    """A NumPy array in the memory of plain data."""
    if array.dtype not in _TYPES:
        raise CheckpointError(f"Tensors of type {array.dtype} are not known to PaddlePaddle here.")
    if not memoryview(array.data).nbytes:
        return np.empty(array.shape, _TYPES[array.dtype])
    return np.frombuffer(array.data, _TYPES[array.dtype]).reshape(array.shape)


def to_tensor(array: Array, place: Any = None) -> paddle.Tensor:
    """A new tensor, with memory of its own, from plain data.

    Raises:
        CheckpointError: there is no such type here.
    """
    if array.parts is not None:
        parts = [to_tensor(part, place) for part in array.parts.values()]
        made: Any = paddle.sparse.sparse_coo_tensor if array.layout == "coo" else paddle.sparse.sparse_csr_tensor
        sparse: paddle.Tensor = made(*parts, list(array.shape))
        return sparse
    if array.layout != "dense":
        raise CheckpointError(f"What is stored as {array.layout} is no tensor of PaddlePaddle.")
    found = paddle.to_tensor(_as_numpy(array), place=place)
    kind: Any = _VIEWED.get(array.dtype)
    return found if kind is None else found.view(kind)


def put(tensor: paddle.Tensor, array: Array) -> None:
    """Puts plain data into a tensor of its type and shape, where that is."""
    if array.layout != "dense":
        copy: Any = tensor.copy_
        copy(to_tensor(array, tensor.place), True)  # set_value takes dense ones alone
    elif tensor.place.is_cpu_place() and array.dtype not in _VIEWED:
        tensor.get_tensor().set(_as_numpy(array), paddle.CPUPlace())  # copies once, and not by way of a new tensor
    else:
        tensor.set_value(to_tensor(array, tensor.place))
