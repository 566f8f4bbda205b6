"""PyTorch's tensors as plain data, and back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from dowdyboy_core import CheckpointError
from dowdyboy_core.backend import Array, is_looking

_KNOWN = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
_NAMES = {getattr(torch, dtype): name for dtype, name in _KNOWN.items() if hasattr(torch, dtype)}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


def to_array(tensor: torch.Tensor, what: str = "tensor") -> Array:
    """A copy of a tensor as plain data.

    Raises:
        CheckpointError: a layout or a type that can't be stored, or what a lazy module hasn't made yet.
    """
    if is_lazy(tensor):
        raise CheckpointError(
            f"{what} was never made: no forward has come to its lazy module. Run one batch through the model, or take "
            "out what isn't used."
        )
    parts = _parts(tensor)
    if tensor.dtype not in _NAMES or (parts is None and tensor.layout is not torch.strided):
        raise CheckpointError(
            f"{what} is a {tensor.layout} tensor of type {tensor.dtype}, which can't be stored. Convert it first."
        )
    name, shape = _NAMES[tensor.dtype], tuple(tensor.shape)
    if parts is not None:
        return Array(name, shape, b"", *parts)
    if is_looking():
        return Array(name, shape, b"")
    resolved = tensor.detach().resolve_conj().resolve_neg()
    flat = resolved.to("cpu", copy=True, memory_format=torch.contiguous_format).reshape(-1)
    return Array(name, shape, flat.view(torch.uint8).numpy())


def _parts(tensor: torch.Tensor) -> tuple[str, dict[str, Array]] | None:
    """The layout of a sparse tensor, and the arrays that it is made of; None of another one."""
    if tensor.layout not in (torch.sparse_coo, torch.sparse_csr) or tensor.dtype not in _NAMES:
        return None
    kept = tensor.detach()
    if tensor.layout is torch.sparse_coo:  # as they lie: indices() wants them coalesced
        return "coo", {"indices": to_array(kept._indices()), "values": to_array(kept._values())}
    if tensor.ndim != 2 or kept.values().ndim != 1:
        return None
    return "csr", {
        "crow": to_array(kept.crow_indices()),
        "col": to_array(kept.col_indices()),
        "values": to_array(kept.values()),
    }


def layout_of(value: Any) -> Array:
    """What ``to_array`` would give, without the data; of an extra state that it is one."""
    if not isinstance(value, torch.Tensor):
        return Array("", (), None, "state")
    dtype = _NAMES.get(value.dtype, str(value.dtype))
    if is_lazy(value):  # which has no shape to ask for
        return Array(dtype, (), b"")
    if value.layout is torch.sparse_csr:  # into which PyTorch copies only as many elements as it has
        sizes = {"crow": value.crow_indices(), "col": value.col_indices(), "values": value.values()}
        parts = {name: Array("", tuple(item.shape), b"") for name, item in sizes.items()}
        return Array(dtype, tuple(value.shape), b"", "csr", parts)
    layout = {torch.strided: "dense", torch.sparse_coo: "coo"}.get(value.layout, str(value.layout))
    return Array(dtype, tuple(value.shape), b"", layout)


def as_tensor(array: Array) -> torch.Tensor:
    """A CPU tensor in the memory of plain data, if that can be written to.

    Raises:
        CheckpointError: there is no such type here.
    """
    if array.dtype not in _TYPES:
        raise CheckpointError(f"Tensors of type {array.dtype} are not known to PyTorch here.")
    if array.parts is not None:
        return _sparse(array, {name: as_tensor(part) for name, part in array.parts.items()})
    data = memoryview(array.data)
    if not data.nbytes:
        return torch.empty(array.shape, dtype=_TYPES[array.dtype])
    flat = torch.frombuffer(bytearray(data) if data.readonly else data, dtype=_TYPES[array.dtype])
    return flat.reshape(array.shape)


def _sparse(array: Array, parts: dict[str, torch.Tensor]) -> torch.Tensor:
    if array.layout == "csr":
        made = torch.sparse_csr_tensor(parts["crow"], parts["col"], parts["values"], array.shape, check_invariants=True)
        return made
    indices = parts["indices"]
    return torch.sparse_coo_tensor(
        indices, parts["values"], array.shape, is_coalesced=_are_in_order(indices), check_invariants=True
    )


def _are_in_order(indices: torch.Tensor) -> bool:
    """Whether each place is there once, in the order of the axes: whether a tensor of these is coalesced."""
    steps = (indices[:, 1:] - indices[:, :-1]).sign()
    weights = torch.tensor([math.ldexp(1, -axis) for axis in range(len(indices))], dtype=torch.float64)
    return bool(((steps * weights[:, None]).sum(0) > 0).all())
