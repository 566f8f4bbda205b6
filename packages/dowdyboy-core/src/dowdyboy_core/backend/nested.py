"""Batches of any nesting: tuples, lists, dicts, namedtuples and dataclasses with anything inside."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """Gives ``value`` again with each leaf replaced by ``function(leaf)``; containers keep their type.

    A leaf is whatever is not a tuple, list, mapping, namedtuple or dataclass instance; strings are leaves.
    """
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([map_leaves(function, item) for item in value])
    if kind is dict:
        return {key: map_leaves(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return kind(*(map_leaves(function, item) for item in value))
    if isinstance(value, (tuple, list)):
        return kind(map_leaves(function, item) for item in value)
    if isinstance(value, Mapping):
        return _map_mapping(function, value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _map_dataclass(function, value)
    return function(value)


def _map_mapping(function: Callable[[Any], Any], value: Mapping[Any, Any]) -> Any:
    mapped = {key: map_leaves(function, item) for key, item in value.items()}
    if hasattr(value, "update"):
        # A copy keeps what a subclass carries besides its items (a default factory, attributes).
        clone = copy.copy(value)
        clone.update(mapped)
        return clone
    return type(value)(mapped)  # type: ignore[call-arg]


def _map_dataclass(function: Callable[[Any], Any], value: Any) -> Any:
    # A shallow copy, not replace(): neither __init__ nor __post_init__ must run a second time,
    # and fields with init=False keep their place.
    clone = copy.copy(value)
    for field in dataclasses.fields(value):
        object.__setattr__(clone, field.name, map_leaves(function, getattr(value, field.name)))
    return clone
