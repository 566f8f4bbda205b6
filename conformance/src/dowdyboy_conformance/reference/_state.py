"""State of the framework's objects as plain trees, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dowdyboy_core import CheckpointError
from dowdyboy_core.backend import Array, check_groups, is_looking

from .framework.layers import Module
from .framework.optim import Optimizer

_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128",
}  # fmt: skip
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


def to_array(values: NDArray[Any]) -> Array:
    """A copy of an array as plain data.

    Raises:
        CheckpointError: a type that can't be stored.
    """
    if values.dtype.name not in _NAMES:
        raise CheckpointError(f"Tensors of type {values.dtype} can't be stored. Convert them first.")
    if is_looking():
        return Array(_NAMES[values.dtype.name], values.shape, b"")
    copied = np.array(values, order="C")
    return Array(_NAMES[values.dtype.name], values.shape, copied.reshape(-1).view(np.uint8))


def from_array(array: Array) -> NDArray[Any]:
    """A new array, with memory of its own, from plain data."""
    if array.dtype not in _TYPES:
        raise CheckpointError(f"Tensors of type {array.dtype} are not known to the reference.")
    values: NDArray[Any] = np.frombuffer(bytearray(array.data), _TYPES[array.dtype])
    return values.reshape(array.shape)


def model_state(model: Module) -> dict[str, Array]:
    """The parameters and buffers of a model as plain data, in which tied ones are one object."""
    found = model.state()
    copied = {id(tensor): to_array(tensor.data) for tensor in {id(item): item for item in found.values()}.values()}
    return {path: copied[id(tensor)] for path, tensor in found.items()}


def load_model_state(model: Module, state: Mapping[str, Array]) -> None:
    """Puts a state that is known to fit into a model."""
    for path, tensor in model.state().items():
        tensor.data = from_array(state[path])


def optimizer_state(optimizer: Optimizer, names: Mapping[int, str]) -> Any:
    """The slots of an optimizer by the names of its parameters."""
    paths = _paths(optimizer, names)
    return {
        "state": {
            paths[place]: {name: to_array(slot) for name, slot in slots.items()}
            for place, slots in sorted(optimizer.slots.items())
        },
        "param_groups": [{"params": paths}],
        "lr": optimizer.lr,
    }


def load_optimizer_state(optimizer: Optimizer, names: Mapping[int, str], state: Any) -> None:
    """Puts such a state into an optimizer.

    Raises:
        CheckpointError: its parameters or slots are not the same; nothing was changed.
    """
    paths = _paths(optimizer, names)
    check_groups([group["params"] for group in state["param_groups"]], [paths])
    found = {}
    for path, stored in state["state"].items():
        place = paths.index(path)
        wanted = {name: slot.shape for name, slot in optimizer.fresh_slots(optimizer.parameters[place]).items()}
        if {name: tuple(slot.shape) for name, slot in stored.items()} != wanted:
            raise CheckpointError(
                f"The optimizer was saved with the slots {sorted(stored)} of {path} and now has {sorted(wanted)}. Make "
                "it as when it was saved, or load the weights alone with weights_only=True."
            )
        found[place] = {name: from_array(slot) for name, slot in stored.items()}
    optimizer.slots, optimizer.lr = found, float(state["lr"])


def _paths(optimizer: Optimizer, names: Mapping[int, str]) -> list[str]:
    return [names.get(id(item), f"unnamed/{place}") for place, item in enumerate(optimizer.parameters)]
